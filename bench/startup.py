"""Time until a server is ready, and its memory when idle.

`forebay serve` with the bundled models, as users run it: from the start of the process to its ready line, first with an
empty cache folder, then with the costs that this start cached. CPU time stands beside it, because it is more reliable
on a shared machine. Memory is the proportional set size after `IDLE_S` seconds without a stream; pages shared with
others are divided.
"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from forebay_server.bench.rows import Spread
from forebay_server.bench.server_process import running_server

REPEATS = 5
IDLE_S = 1.0


@dataclass(frozen=True, slots=True)
class Start:
    """One start: seconds to the ready line, CPU seconds until then, megabytes a while later."""

    ready_s: float
    cpu_s: float
    pss_mb: float


@dataclass(frozen=True, slots=True)
class StartupResult:
    """The very first start, and those after it."""

    first: Start
    ready_s: Spread
    cpu_s: Spread
    pss_mb: Spread


def measure_startup(repeats: int = REPEATS) -> StartupResult:
    """Start servers one after the other."""
    with tempfile.TemporaryDirectory(prefix="forebay-bench-") as folder:
        config = Path(folder) / "forebay.toml"
        config.write_text(f'cache_folder = "{folder}/cache"\n')
        first, *others = [_start(config) for _ in range(repeats + 1)]
    return StartupResult(
        first,
        Spread.of([start.ready_s for start in others]),
        Spread.of([start.cpu_s for start in others]),
        Spread.of([start.pss_mb for start in others]),
    )


def _start(config: Path) -> Start:
    started_s = time.perf_counter()
    with running_server(None, "--config", str(config)) as server:
        ready_s = time.perf_counter() - started_s
        cpu_s = server.cpu_s()
        time.sleep(IDLE_S)  # noqa: TID251 - what is measured is that nothing happens
        return Start(ready_s, cpu_s, server.pss_bytes() / (1 << 20))

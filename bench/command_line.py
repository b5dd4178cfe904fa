"""Commands that must be quick: `forebay --help`, and `forebay health`, which a container runs every few seconds.

Each runs as a process of its own, as users and platforms run it. CPU is user and system time of that process, from the
kernel; beside it stands an interpreter that runs nothing, so that their quotient holds on any machine. The checks under
load share one core with a server of the bundled models that is offered twice its capacity; the cameras have another
core, if there is one.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from forebay_server.bench.rows import Row, Spread
from forebay_server.bench.server_process import RunningServer, running_server, simulated_config
from forebay_server.bench.throughput import load

REPEATS, CHECKS = 20, 20
BUDGET_HELP_S, BUDGET_HEALTH_CPU_S, BUDGET_CHECK_S = 0.15, 0.05, 1.0
BAR_HELP, BAR_HEALTH = 8.0, 3.0  # CPU over an empty interpreter's: 4 and 1.6 on a busy machine; with gRPC 12
PERIOD_S = 0.5  # between the beginnings of two checks
LEAD_S = 5.0  # until the load has begun and the queues are full
ROOM_S = 10.0  # of load after the last check, were it slow
CAMERAS, OVERLOAD = 4, 2.0
_MODULE = (sys.executable, "-m", "forebay_server.service")


@dataclass(frozen=True, slots=True)
class Ended:
    """A process that has ended: its exit code, and how long it took on the clock and of the CPU, in seconds."""

    code: int
    elapsed_s: float
    cpu_s: float


def run(*command: str) -> Ended:
    """Run a command, which must have a limit in time of its own, to its end; its output is dropped."""
    began_s = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:  # noqa: S603
        _, status, usage = os.wait4(process.pid, 0)
        elapsed_s = time.perf_counter() - began_s
        process.returncode = os.waitstatus_to_exitcode(status)
    return Ended(process.returncode, elapsed_s, usage.ru_utime + usage.ru_stime)


def rows(*, is_quick: bool) -> Iterator[Row]:
    """Measure the commands alone, then the checks beside a server that has too much to do."""
    repeats = 5 if is_quick else REPEATS
    yield from _lone_rows(repeats)
    yield from _loaded_rows(CHECKS // 2 if is_quick else CHECKS)


def _lone_rows(repeats: int) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="forebay-bench-") as folder, contextlib.ExitStack() as servers:
        config = {"simulated": simulated_config(alpha_ms=0, beta_ms=0)}
        plain = servers.enter_context(running_server(config))
        cases = {
            "health, plain port": ("--address", plain.address),
            "health, unix socket": ("--address", plain.uds),
            "health, a model that is not there": ("--address", plain.address, "--model", "none"),
            "health, no server": ("--address", "127.0.0.1:9"),
        }
        if (files := _certificate(Path(folder))) is not None:
            cert, key = files
            tls = ("--tls-cert", cert, "--tls-key", key)
            secured = servers.enter_context(running_server(config, *tls, "--tls-client-ca", cert))
            cases["health, TLS with a certificate of the client"] = (
                "--address",
                secured.address,
                "--tls-ca",
                cert,
                *tls,
            )
        commands = {
            "an empty interpreter": (sys.executable, "-c", "pass"),
            "forebay --help": (*_MODULE, "--help"),
            **{name: (*_MODULE, "health", *words) for name, words in cases.items()},
        }
        measured: dict[str, list[Ended]] = {name: [] for name in commands}
        for _ in range(repeats):  # by turns: a busy second meets all of them
            for name, command in commands.items():
                measured[name].append(run(*command))
    empty_s = [each.cpu_s for each in measured.pop("an empty interpreter")]
    yield Row("an empty interpreter: CPU", Spread.of(empty_s), "s", note="yardstick")
    for name, ended in measured.items():
        yield from _rows_of(name, ended, empty_s)


def _rows_of(name: str, ended: list[Ended], empty_s: list[float]) -> Iterator[Row]:
    is_help = name.endswith("--help")
    cpu_s = [each.cpu_s for each in ended]
    if is_help:
        yield Row(f"{name}: elapsed", Spread.of([each.elapsed_s for each in ended]), "s", BUDGET_HELP_S)
        yield Row(f"{name}: CPU", Spread.of(cpu_s), "s")
    else:
        codes = ", ".join(sorted({str(each.code) for each in ended}))
        yield Row(f"{name}: CPU", Spread.of(cpu_s), "s", BUDGET_HEALTH_CPU_S, note=f"exit code {codes}")
    over = [mine / other for mine, other in zip(cpu_s, empty_s, strict=True)]
    bar = BAR_HELP if is_help else BAR_HEALTH
    yield Row(f"{name}: CPU over the empty interpreter's", Spread.of(over), bar=bar)


def _certificate(folder: Path) -> tuple[str, str] | None:
    """Make a certificate for 127.0.0.1 that is its own authority; None without the command openssl."""
    if shutil.which("openssl") is None:
        return None
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=forebay", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", key, "-out", cert], check=True, capture_output=True)  # noqa: S603
    return cert, key


def _loaded_rows(checks: int) -> Iterator[Row]:
    before = os.sched_getaffinity(0)
    first, *others = sorted(before)
    try:
        os.sched_setaffinity(0, {first})  # a child has the cores of the thread that starts it
        with running_server() as server, ThreadPoolExecutor(1) as pool:
            os.sched_setaffinity(0, set(others) or before)
            closed = load(server.address, "--concurrency", "2", "--cameras", str(CAMERAS), "--duration", "5s")
            fps = OVERLOAD * closed["answered_per_s"] / CAMERAS
            seconds = LEAD_S + checks * PERIOD_S + ROOM_S
            options = ("--cameras", str(CAMERAS), "--fps", f"{fps:.2f}", "--duration", f"{seconds:g}s")
            offered = pool.submit(load, server.address, *options)
            os.sched_setaffinity(0, {first})
            ended = list(_checks(server, checks))
            if offered.done():
                raise RuntimeError("the load ended before the checks: the measurement is void")
            report = offered.result()
    finally:
        os.sched_setaffinity(0, before)
    in_time = sum(each.code == 0 and each.elapsed_s <= BUDGET_CHECK_S for each in ended)
    note = f"{CAMERAS} cameras, {report['offered_per_s']:.0f} frames a second, {report['answered_per_s']:.0f} answered"
    name = "health beside a server that shares its core"
    share = Spread.of([in_time / len(ended)])
    yield Row(
        f"{name}: share of {len(ended)} within {BUDGET_CHECK_S:g} s", share, "", 1.0, is_higher_better=True, note=note
    )
    yield Row(f"{name}: elapsed", Spread.of([each.elapsed_s for each in ended]), "s", BUDGET_CHECK_S)
    yield Row(f"{name}: CPU", Spread.of([each.cpu_s for each in ended]), "s")


def _checks(server: RunningServer, checks: int) -> Iterator[Ended]:
    start_s = time.monotonic() + LEAD_S
    for number in range(checks):
        time.sleep(max(0.0, start_s + number * PERIOD_S - time.monotonic()))  # noqa: TID251 - the checks' own pace
        yield run(*_MODULE, "health", "--address", server.address, "--timeout-s", "10")

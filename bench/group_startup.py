"""Time until a group of front-end processes is ready, and their memory: `python -m forebay_server.bench.group_startup`.

`forebay serve` with the bundled models, with one process and with front-end processes by turns: from the start of the
process to the ready line, which comes when all listen, with the costs of an earlier start in the cache. Memory is the
proportional set size `IDLE_S` after that, without a stream: pages that processes share are divided among them.

A group may have more front-end processes than this machine has cores, unlike one of a user: then they start in turns,
and the ratio says more of the machine than of the group.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from forebay_server.bench.report import short
from forebay_server.bench.rows import Row, Spread
from forebay_server.bench.server_process import running_server

FRONT_ENDS = 4
ROUNDS = 5
IDLE_S = 1.0
BUDGET_RATIO = 1.5
BUDGET_FRONT_END_MB = 80.0


def measure(front_ends: int, config: Path) -> tuple[float, list[float]]:
    """Start one server; return the seconds until it was ready, and the megabytes of its processes, the engine first."""
    module = "forebay_server.bench.group_startup" if front_ends else "forebay_server.service"
    started_s = time.perf_counter()
    with running_server(None, "--config", str(config), front_ends=front_ends, module=module) as server:
        ready_s = time.perf_counter() - started_s
        time.sleep(IDLE_S)  # noqa: TID251 - what is measured is that nothing happens
        pids = [server.process.pid, *server.others]
        return ready_s, [psutil.Process(pid).memory_full_info().pss / (1 << 20) for pid in pids]


def rows(front_ends: int, rounds: int) -> Iterator[Row]:
    """Measure by turns; the first turn fills the cache and does not count."""
    one_s, group_s, one_mb, engine_mb, front_end_mb = [], [], [], [], []
    with tempfile.TemporaryDirectory(prefix="forebay-bench-") as folder:
        config = Path(folder) / "forebay.toml"
        config.write_text(f'cache_folder = "{folder}/cache"\n')
        for number in range(rounds + 1):
            alone_s, (alone_mb, *_) = measure(0, config)
            together_s, (first_mb, *others_mb) = measure(front_ends, config)
            if number:
                one_s.append(alone_s)
                group_s.append(together_s)
                one_mb.append(alone_mb)
                engine_mb.append(first_mb)
                front_end_mb += others_mb
    what = f"{front_ends} front-end processes"
    ratios = [group / one for group, one in zip(group_s, one_s, strict=True)]
    yield Row("start to ready, one process", Spread.of(one_s), "s")
    yield Row(f"start to ready, {what}", Spread.of(group_s), "s")
    yield Row(f"start to ready, {what} over one process", Spread.of(ratios), "", BUDGET_RATIO)
    yield Row("memory (PSS), idle, one process", Spread.of(one_mb), "MB")
    yield Row(f"memory (PSS), idle, engine process of {what}", Spread.of(engine_mb), "MB")
    yield Row(f"memory (PSS), idle, each of {what}", Spread.of(front_end_mb), "MB", BUDGET_FRONT_END_MB)


def serve(arguments: list[str]) -> None:
    """Be `forebay serve`, on a machine of as many cores as it is given front-end processes."""
    from forebay_server.service.cli import main as forebay
    from forebay_server.service.cores import usable_cores
    from forebay_server.service.group import count

    wanted = int(arguments[arguments.index("--front-ends") + 1])
    cores = usable_cores()
    vars(count)["usable_cores"] = lambda: max(wanted, cores)
    sys.argv = ["forebay", *arguments]
    forebay()


def main() -> None:
    """See the module."""
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[1:])
        return
    parser = argparse.ArgumentParser(prog="python -m forebay_server.bench.group_startup", description=__doc__)
    parser.add_argument("--front-ends", type=int, default=FRONT_ENDS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    print(f"{len(os.sched_getaffinity(0))} cores, load average {os.getloadavg()[0]:.1f}")
    for row in rows(given.front_ends, given.rounds):
        print(f"{row.what}: {short(row)} {row.unit} {row.verdict}".rstrip())


if __name__ == "__main__":
    main()

"""Run the benchmarks: `python -m bench [NAME...]` prints them, `--check` compares them with their budgets instead.

`make bench` and `make bench-check`. A budget that is missed ends `--check` with 1 and says by how much.
"""

import argparse
import sys
from collections.abc import Callable, Iterator

from bench import identity, startup


def _check_identity() -> Iterator[tuple[str, float, float]]:
    result = identity.measure_identity()
    yield "server CPU per frame, 32 in flight (ms)", result.server_cpu_ms.median, 0.19
    yield "one in flight, p50 (ms)", result.lone_p50_ms.median, 0.7


def _check_startup() -> Iterator[tuple[str, float, float]]:
    result = startup.measure_startup()
    yield "very first start to ready (s)", result.first.ready_s, 4.0
    yield "start to ready with saved costs (s)", result.ready_s.median, 2.0
    yield "idle memory, PSS (MB)", result.pss_mb.median, 200.0


RUN: dict[str, Callable[[], None]] = {"identity": identity.main, "startup": startup.main}
# name -> (what, measured, budget); smaller is better. The budgets and their reasons are in docs/benchmarks.md.
CHECK: dict[str, Callable[[], Iterator[tuple[str, float, float]]]] = {
    "identity": _check_identity,
    "startup": _check_startup,
}


def _is_within_budgets(name: str) -> bool:
    is_within = True
    for what, measured, budget in CHECK[name]():
        verdict = "ok" if measured <= budget else f"MISSED by {measured / budget - 1:.0%}"
        is_within &= measured <= budget
        print(f"{name}: {what}: {measured:.3f}, budget {budget:g}: {verdict}")
    return is_within


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(RUN)} (default: all)")
    parser.add_argument("--check", action="store_true", help="compare with the budgets")
    options = parser.parse_args()
    if unknown := set(options.names) - set(RUN):
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join(RUN)}")
    if options.check:
        missed = [name for name in options.names or CHECK if not _is_within_budgets(name)]
        sys.exit(1 if missed else 0)
    for name in options.names or RUN:
        RUN[name]()


if __name__ == "__main__":
    main()

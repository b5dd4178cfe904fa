"""Run the benchmarks: `python -m bench [NAME...]` measures and prints; with `--write`, docs/benchmarks.md is written.

`make bench` runs and writes everything (about 25 minutes); with ARGS=NAME one part, and the others' numbers stay.
`make bench-check` (`--check`, at most eight minutes) runs a shorter form and fails when a ratio is worse than its bar.
Absolute numbers are never judged there: on a machine that others use too they say more about the others.
"""

import argparse
import sys
import traceback
from collections.abc import Iterator
from typing import Protocol

from bench import identity, observe, report, streams, systems, throughput
from bench.rows import Row


class Benchmark(Protocol):
    """Measures and gives rows, shorter and fewer if quick."""

    def __call__(self, *, is_quick: bool) -> Iterator[Row]:
        """Measure."""
        ...


BENCHMARKS: dict[str, tuple[str, Benchmark]] = {
    "identity": ("What a frame costs", identity.rows),
    "throughput": ("Throughput over the engine alone", throughput.rows),
    "cameras": ("Camera overload", systems.cameras_rows),
    "batching": ("Batching", systems.batching_rows),
    "startup": ("Start and memory", systems.startup_rows),
    "streams": ("Many streams", streams.rows),
    "observe": ("Being observed", observe.rows),
    "capacity": ("Capacity", systems.capacity_rows),
}
"""Name -> (heading, what measures it)."""


def _measure(name: str, *, is_quick: bool) -> tuple[list[Row], bool]:
    """Return the rows of one benchmark and whether it came to its end: what it measured before is kept."""
    rows: list[Row] = []
    try:
        for row in BENCHMARKS[name][1](is_quick=is_quick):
            rows.append(row)
            line = f"{name}: {row.what}: {report.short(row)} {row.unit} {row.verdict} {row.note}"
            print(line.rstrip(), flush=True)
    except Exception:  # noqa: BLE001 - whatever it is, it is printed, and the run fails
        traceback.print_exc()
        return rows, False
    return rows, True


def _worse_than_bar(measured: dict[str, list[Row]]) -> list[str]:
    rows = [row for group in measured.values() for row in group]
    return [
        f"{row.what}: {report.short(row)}, bar {row.bar:g}"
        for row in rows
        if row.bar is not None and not row.meets(row.bar)
    ]


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(BENCHMARKS)} (default: all)")
    parser.add_argument("--check", action="store_true", help="shorter; fail if a ratio is worse than its bar")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md and the history")
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    started = report.start()
    headings = [heading for heading, _ in BENCHMARKS.values()]
    measured: dict[str, list[Row]] = {}
    is_whole = True
    for name in options.names or BENCHMARKS:
        rows, is_ended = _measure(name, is_quick=options.check)
        measured[BENCHMARKS[name][0]] = rows
        is_whole &= is_ended
        if options.write:  # after each: a run that is interrupted leaves what it has
            report.write(measured, " ".join(["python -m bench", *options.names, "--write"]), started, headings)
    worse = _worse_than_bar(measured) if options.check else []
    for line in worse:
        print(f"WORSE: {line}")
    sys.exit(0 if is_whole and not worse else 1)


if __name__ == "__main__":
    main()

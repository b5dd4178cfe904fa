"""Run the benchmarks: `python -m forebay_server.bench [NAME...]` measures and prints; `--write` writes the page.

`make bench` runs and writes everything (about 25 minutes); with ARGS=NAME one part, and the others' numbers stay.
`make bench-check` (`--check`, at most eight minutes) runs a shorter form and fails when a ratio is worse than its bar,
twice in a row. Times on a real clock are never judged there: on a machine that others use too they say more about them.
"""

import argparse
import json
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from forebay_server.bench import (
    calls,
    command_line,
    elsewhere,
    few_cores,
    heads,
    identity,
    observe,
    overload_report,
    pictures,
    report,
    saturation,
    streams,
    systems,
    throughput,
    tracks,
)
from forebay_server.bench.rows import Row
from forebay_server.loadtest.places import output_file


class Benchmark(Protocol):
    """Measures and gives rows, shorter and fewer if quick."""

    def __call__(self, *, is_quick: bool) -> Iterator[Row]:
        """Measure."""
        ...


BENCHMARKS: dict[str, tuple[str, Benchmark]] = {
    "identity": ("What a frame costs", identity.rows),
    "few_cores": ("Few cores", few_cores.rows),
    "calls": ("One request's way", calls.rows),
    "pictures": ("What a picture costs", pictures.rows),
    "throughput": ("Throughput over the engine alone", throughput.rows),
    "cameras": ("Camera overload", systems.cameras_rows),
    "batching": ("Batching", systems.batching_rows),
    "startup": ("Start and memory", systems.startup_rows),
    "command_line": ("Quick commands", command_line.rows),
    "heads": ("Heads of detectors", heads.rows),
    "streams": ("Many streams", streams.rows),
    "observe": ("Being observed", observe.rows),
    "tracks": ("Tracks with frames missing", tracks.rows),
    "capacity": ("Capacity", systems.capacity_rows),
    "gpu": ("GPU at saturation, quoted", saturation.rows),
}
"""Name -> (heading, the function that measures it)."""


def _measure(name: str, *, is_quick: bool) -> tuple[list[Row], bool]:
    """Return the rows of one benchmark and whether it came to its end: rows measured before a failure are kept."""
    rows: list[Row] = []
    try:
        for row in BENCHMARKS[name][1](is_quick=is_quick):
            rows.append(row)
            line = f"{name}: {row.what}: {report.short(row)} {row.unit} {row.verdict} {row.note}"
            print(line.rstrip(), flush=True)
    except Exception:  # noqa: BLE001 - any error is printed, and the run fails
        traceback.print_exc()
        return rows, False
    return rows, True


def _worse_than_bar(rows: list[Row]) -> list[str]:
    return [
        f"{row.what}: {report.short(row)}, bar {row.bar:g}"
        for row in rows
        if row.bar is not None and not row.meets(row.bar)
    ]


def headings() -> list[str]:
    """Return the page's headings in their order; that of the overload has a command of its own, `bench.cameras`."""
    found = [heading for heading, _ in BENCHMARKS.values()]
    found.insert(found.index(BENCHMARKS["cameras"][0]) + 1, overload_report.HEADING)
    return found


def _check(names: Iterable[str]) -> list[str]:
    """Return the ratios that are worse than their bar or unmeasured, twice: one may be another process's fault."""
    failed: list[str] = []
    for name in names:
        for is_last in (False, True):
            rows, is_ended = _measure(name, is_quick=True)
            worse = _worse_than_bar(rows) + ([] if is_ended else [f"{name} did not come to its end"])
            if not worse:
                break
            for line in worse:
                print(f"{'WORSE' if is_last else 'worse, trying again'}: {line}", flush=True)
            if is_last:
                failed += worse
    return failed


def _write(names: list[str], file: Path | None, *, is_written: bool) -> bool:
    """Measure in full, keep it in the history or in a file, and return whether everything came to its end."""
    started = report.start()
    measured: dict[str, list[Row]] = {}
    is_whole = True
    for name in names or BENCHMARKS:
        rows, is_ended = _measure(name, is_quick=False)
        measured[BENCHMARKS[name][0]] = rows
        is_whole &= is_ended
        command = " ".join(["python -m forebay_server.bench", *names])
        if is_written:  # after each: an interrupted run keeps its results
            report.write(measured, f"{command} --write", started, headings())
        if file is not None:
            report.save(report.record(measured, command, started), file)
    return is_whole


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m forebay_server.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(BENCHMARKS)} (default: all)")
    parser.add_argument("--check", action="store_true", help="shorter; fail if a ratio is worse than its bar, twice")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md and the history")
    parser.add_argument("--page", action="store_true", help="write docs/benchmarks.md anew from the history; no run")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write the run there, to be added elsewhere")
    parser.add_argument(
        "--from",
        dest="files",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="add runs of another machine (what --json wrote) to the history, and write the page; no run",
    )
    parser.add_argument("--note", metavar="TEXT", help="with --from: a remark on that machine for the reader")
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    if options.check + options.write + options.page + bool(options.files) > 1:
        parser.error("--check, --write, --page and --from are different things")
    if options.files:
        try:
            runs = [json.loads(file.read_text()) for file in options.files]
            report.keep(elsewhere.joined(runs, options.note), headings())
        except (OSError, ValueError) as error:
            parser.error(f"--from: {error}")
        return
    if options.page:
        report.write_page(headings())
        return
    if options.check:
        started_s = time.monotonic()
        failed = _check(options.names or BENCHMARKS)
        print(f"bench: {f'{len(failed)} worse' if failed else 'no ratio is worse than its bar'}, ", end="")
        print(f"{time.monotonic() - started_s:.0f} s")
        sys.exit(1 if failed else 0)
    sys.exit(0 if _write(options.names, options.json, is_written=options.write) else 1)


if __name__ == "__main__":
    main()

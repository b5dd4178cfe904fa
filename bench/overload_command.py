"""The command line of the overload benchmark: its cells, its output, and its files."""

import argparse
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from forebay_server.bench import report
from forebay_server.bench.cameras import CAPACITY_PER_S
from forebay_server.bench.overload import (
    DELIVERIES,
    LOADS,
    QUICK_SECONDS,
    SECONDS,
    SIZES,
    cells,
    closed_loop_per_s,
    measure,
)
from forebay_server.bench.overload_report import line_of, record_of
from forebay_server.bench.overload_targets import capacity_lines, shortcomings, size_words
from forebay_server.loadtest.places import output_file

QUICK_LOADS = (1.2, 2.0)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what `--overload` understands."""
    group = parser.add_argument_group("overload")
    group.add_argument("--overload", action="store_true", help="cells of 1.2 to 3 times capacity, a server each")
    group.add_argument("--hog", action="store_true", help="and each again beside a process that takes one core")
    group.add_argument(
        "--alone",
        action="store_true",
        help="real-time priority for cells without a hog: other work does not disturb them",
    )
    group.add_argument("--quick", action="store_true", help=f"{QUICK_SECONDS:g} s a cell, two loads")
    group.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="BYTES", help="of a frame")
    group.add_argument("--deliveries", nargs="+", choices=DELIVERIES, default=DELIVERIES)
    group.add_argument("--loads", type=float, nargs="+", default=None, metavar="L", help="times the capacity")
    group.add_argument("--commit", metavar="NAME", help="of this tree, where there is no git to ask")
    group.add_argument("--json", type=output_file, metavar="FILE", help="write the run there, after every cell")
    group.add_argument("--write", action="store_true", help="keep it in the history, and write docs/benchmarks.md")


def run_overload(given: argparse.Namespace, seconds: float | None) -> bool:
    """Measure, print and keep; return whether every capacity is unchanged."""
    started = report.start()
    seconds = seconds or (QUICK_SECONDS if given.quick else SECONDS)
    if given.alone:
        _keep_others_away(is_wanted=True)
    capacities = {str(size): _capacity_per_s(size) for size in given.sizes}
    lines, is_held = capacity_lines(capacities, _before(started.machine))
    print("\n".join(lines), flush=True)
    loads = given.loads or (QUICK_LOADS if given.quick else LOADS)
    records: list[dict[str, Any]] = []
    document = {
        "commit": given.commit or _commit(),
        "seconds": seconds,
        "is_alone": given.alone,
        "capacities": capacities,
        "cells": records,
    }
    command = _command(given, seconds, loads)
    for cell in cells(given.sizes, given.deliveries, loads, has_hog=given.hog):
        if given.alone:
            _keep_others_away(is_wanted=not cell.is_disturbed)
        outcome = measure(cell, capacities[str(cell.payload_bytes)], seconds)
        records.append(record_of(outcome))
        print(line_of(records[-1]), flush=True)
        if given.json is not None:  # after each: an interrupted run keeps its cells
            report.save(report.record({}, command, started, document), given.json)
    missed = shortcomings(records)
    print("\n".join(["missed:", *missed]) if missed else "every target is met")
    if given.write:
        from forebay_server.bench.__main__ import headings

        report.keep([report.record({}, command, started, document)], headings())
    return is_held


def _command(given: argparse.Namespace, seconds: float, loads: Iterable[float]) -> str:
    """Return what repeats the run; which sizes and deliveries were measured, its table shows."""
    flags = "".join(f" --{name}" for name in ("hog", "alone", "quick") if getattr(given, name))
    flags += f" --seconds {seconds:g} --loads " + " ".join(f"{load:g}" for load in loads)
    return f"python -m forebay_server.bench.cameras --overload{flags}"


def _keep_others_away(*, is_wanted: bool) -> None:
    """Let this process, and those that it starts from now on, run before all that have no such priority, or not."""
    policy, priority = (os.SCHED_RR, 1) if is_wanted else (os.SCHED_OTHER, 0)
    os.sched_setscheduler(0, policy, os.sched_param(priority))


def _capacity_per_s(size: int) -> float:
    closed = closed_loop_per_s(size)
    print(f"closed loop, 64 in flight, {size_words(size)}: {closed:.0f} frames a second", flush=True)
    return min(CAPACITY_PER_S, closed)


def _before(machine: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the newest overload on record that was measured on such a machine."""
    for record in reversed(report.history()):
        same = all(record["machine"][name] == machine[name] for name in ("processor", "cores"))
        same &= record["machine"].get("host_cores", machine["cores"]) == machine["host_cores"]
        if "overload" in record and same:
            found: dict[str, Any] = record["overload"]
            return found
    return None


def _commit() -> str:
    if shutil.which("git") is None:
        return "unknown"
    command = ["git", "describe", "--always", "--dirty"]
    folder = Path(__file__).resolve().parent
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)  # noqa: S603
    return done.stdout.strip() or "unknown"

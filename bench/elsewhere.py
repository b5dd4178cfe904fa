"""Runs measured on another machine, made ready for the history of this one. Pure.

A machine with many cores measures the overload of every frame size at the same time, each on cores of its own. The page
shows one overload run, so the files of such runs become one record.
"""

from collections.abc import Mapping, Sequence
from typing import Any

SAME = ("commit", "seconds", "is_alone")
SAME_MACHINE = ("processor", "cores", "host_cores", "python", "packages")


def joined(runs: Sequence[Mapping[str, Any]], note: str | None) -> list[dict[str, Any]]:
    """Return the records to keep: overload runs as one, all others as they are, each with the note.

    Args:
        runs: records as `report.record` returns them.
        note: sentence for the page about how they were measured, or None.

    Raises:
        ValueError: overload runs that are not parts of one: other machine, command, commit, or a size twice.
    """
    overloads = [run for run in runs if "overload" in run]
    records = [dict(run) for run in runs if "overload" not in run]
    if overloads:
        records.append(_one(overloads))
    return [record if note is None else record | {"note": note} for record in records]


def _one(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first = min(runs, key=lambda run: str(run["time"]))
    for run in runs:
        differing = [name for name in SAME if run["overload"][name] != first["overload"][name]]
        differing += [name for name in SAME_MACHINE if run["machine"][name] != first["machine"][name]]
        differing += ["command"] if run["command"] != first["command"] else []
        if differing:
            raise ValueError(f"these overload runs are not one measurement: {', '.join(differing)} differ")
    sizes = [size for run in runs for size in run["overload"]["capacities"]]
    if len(set(sizes)) < len(sizes):
        raise ValueError("these overload runs measure the same frame size: add the newest alone")
    ordered = sorted(runs, key=lambda run: min(int(size) for size in run["overload"]["capacities"]))
    overload = first["overload"] | {
        "capacities": {size: rate for run in ordered for size, rate in run["overload"]["capacities"].items()},
        "cells": [cell for run in ordered for cell in run["overload"]["cells"]],
    }
    most = {name: max(run["machine"][name] for run in runs) for name in ("load_average", "load_average_after")}
    return {**first, "machine": {**first["machine"], **most}, "overload": overload}

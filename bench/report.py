"""Writes docs/benchmarks.md and one JSON file a run under bench/history/."""

import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from forebay_server.bench import overload_report
from forebay_server.bench.rows import Row, Spread

HISTORY = Path(__file__).parent / "history"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
TEXT = Path(__file__).with_name("page.txt")
SCHEMA = 1
PACKAGES = ("grpcio", "protobuf", "numpy", "onnxruntime")


def machine() -> dict[str, Any]:
    """Describe where this runs."""
    processor = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    return {
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)),
        "host_cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


@dataclass(frozen=True, slots=True)
class Start:
    """When a run began, and the state of the machine before it."""

    time: datetime
    machine: dict[str, Any]


def start() -> Start:
    """Note the beginning of a run."""
    return Start(datetime.now(UTC), machine())


def write(rows: Mapping[str, Sequence[Row]], command: str, started: Start, order: Sequence[str]) -> None:
    """Write the run's history file, whole, and the page from the newest measurement of every heading.

    Args:
        rows: by heading.
        command: the command that was run.
        started: date and machine.
        order: all headings, as they come on the page.
    """
    keep([record(rows, command, started)], order)


def record(
    rows: Mapping[str, Sequence[Row]], command: str, started: Start, overload: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return a run as the history holds it; arguments as of `write`, and the document of an overload run."""
    return {
        "schema": SCHEMA,
        "time": started.time.isoformat(timespec="seconds"),
        "command": command,
        "machine": {**started.machine, "load_average_after": machine()["load_average"]},
        "rows": {name: [_fields(row) for row in group] for name, group in rows.items()},
        **({} if overload is None else {"overload": overload}),
    }


def keep(records: Iterable[Mapping[str, Any]], order: Sequence[str]) -> None:
    """Write a history file for each of `records`, and the page; a run of the same second is replaced."""
    HISTORY.mkdir(exist_ok=True)
    for each in records:
        save(each, HISTORY / f"{datetime.fromisoformat(each['time']):%Y-%m-%dT%H%M%SZ}.json")
    write_page(order)


def save(each: Mapping[str, Any], path: Path) -> None:
    """Write one run to a file."""
    path.write_text(json.dumps(each, indent=1, allow_nan=False) + "\n")


def history() -> list[dict[str, Any]]:
    """Return every run on record, the oldest first."""
    return [json.loads(path.read_text()) for path in sorted(HISTORY.glob("*.json"))]


def write_page(order: Sequence[str]) -> None:
    """Write the page from the history."""
    sections: dict[str, str] = {}
    for run in history():
        for name, rows in run["rows"].items():
            sections[name] = table(name, [_row(fields) for fields in rows], facts(run))
        if "overload" in run:
            sections[overload_report.HEADING] = overload_report.section(run["overload"], facts(run))
    page = [TEXT.read_text().strip(), *(sections[name] for name in order if name in sections)]
    PAGE.write_text("\n\n".join(page) + "\n")


def facts(run: Mapping[str, Any]) -> str:
    """Say when, how and on which machine a run was measured."""
    before = run["machine"]
    host_cores = before.get("host_cores", before["cores"])
    cores = f"{before['cores']} cores" if host_cores == before["cores"] else f"{before['cores']} of {host_cores} cores"
    note = f" {run['note']}" if "note" in run else ""
    packages = ", ".join(f"{name} {version}" for name, version in before["packages"].items())
    return (
        f"Measured {run['time'][:16].replace('T', ' ')} UTC by `{run['command']}`: {cores} of "
        f"{before['processor']}, Python {before['python']}, {packages}; load average {before['load_average']} before "
        f"and {before['load_average_after']} after the run.{note}"
    )


def _fields(row: Row) -> dict[str, Any]:
    """Return a row for JSON, which knows neither NaN nor infinity."""
    value = {name: number if math.isfinite(number) else None for name, number in asdict(row.value).items()}
    return asdict(row) | {"value": value, "verdict": row.verdict}


def _row(fields: Mapping[str, Any]) -> Row:
    given = {name: value for name, value in fields.items() if name != "verdict"}
    value = {name: math.nan if number is None else number for name, number in fields["value"].items()}
    return Row(**{**given, "value": Spread(**value)})


def table(name: str, rows: Sequence[Row], introduction: str) -> str:
    """Return one table of the page."""
    lines = [
        f"## {name}",
        "",
        introduction,
        "",
        "| what | median (least to most) | budget | verdict | note |",
        "|" + " --- |" * 5,
    ]
    for row in rows:
        sign = ">=" if row.is_higher_better else "<="
        budget = "" if row.budget is None else f"{sign} {row.budget:g} {row.unit}".strip()
        unit = f" {row.unit}" if row.unit and not math.isnan(row.value.median) else ""
        lines.append(f"| {row.what} | {short(row)}{unit} | {budget} | {row.verdict} | {row.note} |")
    return "\n".join(lines)


def short(row: Row) -> str:
    """Return the number with its spread, if it has one, in three digits."""
    value = row.value
    if math.isnan(value.median):
        return "-"
    if value.least == value.most:
        return f"{value.median:.3g}"
    return f"{_digits(value.median)} ({_digits(value.least)} to {_digits(value.most)})"


def _digits(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"

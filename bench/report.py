"""Writes docs/benchmarks.md and one JSON file a run under bench/history/."""

import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.rows import Row

HISTORY = Path(__file__).parent / "history"
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
TEXT = Path(__file__).with_name("page.txt")
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
        "load_average": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


@dataclass(frozen=True, slots=True)
class Start:
    """When a run began, and what the machine was like before it."""

    time: datetime
    machine: dict[str, Any]


def start() -> Start:
    """Note the beginning of a run."""
    return Start(datetime.now(UTC), machine())


def write(rows: Mapping[str, Sequence[Row]], command: str, started: Start) -> None:
    """Write the page and the run's history file, both whole; called again, they are replaced."""
    before, after, now = started.machine, machine(), started.time
    HISTORY.mkdir(exist_ok=True)
    record = {
        "schema": 1,
        "time": now.isoformat(timespec="seconds"),
        "command": command,
        "machine": {**before, "load_average_after": after["load_average"]},
        "rows": {name: [asdict(row) | {"verdict": row.verdict} for row in group] for name, group in rows.items()},
    }
    path = HISTORY / f"{now:%Y-%m-%dT%H%M%SZ}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    packages = ", ".join(f"{name} {version}" for name, version in before["packages"].items())
    facts = (
        f"Measured {now:%Y-%m-%d %H:%M} UTC by `{command}` on {before['cores']} cores of {before['processor']}, Python "
        f"{before['python']}, {packages}. Load average before the run {before['load_average']}, after it "
        f"{after['load_average']}: what is above 0 before the run is other people's work. Server, client and load "
        "tester share the cores."
    )
    tables = [table(name, group) for name, group in rows.items()]
    PAGE.write_text("\n\n".join([TEXT.read_text().strip().replace("{facts}", facts), *tables]) + "\n")


def table(name: str, rows: Sequence[Row]) -> str:
    """Return one table of the page."""
    lines = [f"## {name}", "", "| what | median (least to most) | budget | verdict | note |", "|" + " --- |" * 5]
    for row in rows:
        sign = ">=" if row.is_higher_better else "<="
        budget = "" if row.budget is None else f"{sign} {row.budget:g} {row.unit}".strip()
        unit = f" {row.unit}" if row.unit else ""
        lines.append(f"| {row.what} | {short(row)}{unit} | {budget} | {row.verdict} | {row.note} |")
    return "\n".join(lines)


def short(row: Row) -> str:
    """Return the number with its spread, if it has one, in three digits."""
    value = row.value
    if value.least == value.most:
        return f"{value.median:.3g}"
    return f"{_digits(value.median)} ({_digits(value.least)} to {_digits(value.most)})"


def _digits(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"

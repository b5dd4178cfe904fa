"""The bars of the batch former: numbers that must not get worse, kept in batching_bars.json beside this file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BARS_FILE = Path(__file__).with_name("batching_bars.json")
POLICY = "jit_edf"


@dataclass(frozen=True, slots=True)
class Bar:
    """One number and its limit. `field` may name an entry of a mapping after a dot."""

    workload: str
    load: float
    field: str
    at_most: float | None = None
    at_least: float | None = None

    def is_met_by(self, value: float | None) -> bool:
        """Whether `value` is good enough."""
        if value is None:
            return False
        return (self.at_most is None or value <= self.at_most) and (self.at_least is None or value >= self.at_least)

    @property
    def limit(self) -> str:
        """The limit in words."""
        return f"<= {self.at_most:g}" if self.at_most is not None else f">= {self.at_least:g}"


@dataclass(frozen=True, slots=True)
class BarCheck:
    """A bar and the measured value; `value` is None if its cell was not run."""

    bar: Bar
    value: float | None
    is_met: bool


def load_bars(path: Path = BARS_FILE) -> list[Bar]:
    """Read the bars."""
    return [Bar(**bar) for bar in json.loads(path.read_text(encoding="utf-8"))["bars"]]


def judge(
    results: Sequence[Mapping[str, Any]], decide: Mapping[str, Any] | None, bars: Sequence[Bar]
) -> list[BarCheck]:
    """Return the check of each bar whose cell is among `results`.

    Args:
        results: cells as in the JSON.
        decide: the cost of a decision, if it was measured.
        bars: the bounds to check.
    """
    cells: dict[tuple[str, float], Mapping[str, Any]] = {
        (cell["workload"], cell["load"]): cell for cell in results if cell["policy"] == POLICY
    }
    if decide is not None:
        cells["decide", 1.2] = decide
    return [
        BarCheck(bar, value, bar.is_met_by(value))
        for bar in bars
        if (cell := cells.get((bar.workload, bar.load))) is not None
        for value in [value_of(cell, bar.field)]
    ]


def value_of(cell: Mapping[str, Any], name: str) -> float | None:
    """Return a field of a cell, an entry of a mapping after a dot, or `p99_over_bound`; None if it has no number."""
    if name == "p99_over_bound":
        p99_ms, bound_ms = cell["p99_ms"], cell["bound_p99_ms"]
        return None if p99_ms is None or bound_ms is None else p99_ms / bound_ms
    value: Any = cell
    for part in name.split(".", 1):
        value = value.get(part) if isinstance(value, Mapping) else None
    return float(value) if isinstance(value, int | float) else None

"""A measured number with its spread and its budget: one row of docs/benchmarks.md."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and most of several repeats."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Summarise."""
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.least:.3f} to {self.most:.3f})"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the report.

    Attributes:
        what: description of the measurement.
        value: as measured.
        unit: of it; empty for a ratio.
        budget: the intended limit, None where there is none.
        bar: limit of `make bench-check`, for ratios that hold on any machine; None: not judged.
        is_higher_better: which side of budget and bar is good.
        note: explanation for a reader.
    """

    what: str
    value: Spread
    unit: str = ""
    budget: float | None = None
    bar: float | None = None
    is_higher_better: bool = False
    note: str = ""

    def meets(self, limit: float) -> bool:
        """Whether the median is on the good side of `limit`."""
        return self.value.median >= limit if self.is_higher_better else self.value.median <= limit

    @property
    def verdict(self) -> str:
        """`met`, or by how much the budget is missed; empty without a budget."""
        if self.budget is None:
            return ""
        if math.isnan(self.value.median):
            return "no number: see the note"
        if self.meets(self.budget):
            return "met"
        return f"missed: {self.value.median / self.budget:.2f} x the budget"

"""Histograms of durations, filled with whole arrays: one call for all frames of half a second.

Counts only rise. A reader on another thread copies `counts` in one piece, and takes the total from that copy.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BOUNDS_S = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03,
    0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Upper bounds of the buckets in seconds; a last one takes the rest. Close together where budgets of cameras lie."""
_BOUNDS_US = np.array([round(bound * 1e6) for bound in BOUNDS_S])
BUCKETS = len(BOUNDS_S) + 1


@dataclass(frozen=True, slots=True)
class HistogramSnapshot:
    """One histogram at one moment.

    Attributes:
        counts: by bucket, not cumulative.
        sum_s: of all durations.
    """

    counts: tuple[int, ...]
    sum_s: float

    @property
    def count(self) -> int:
        """Durations in all."""
        return sum(self.counts)


class Histograms:
    """One histogram per row. Thread: one writes, any takes snapshots.

    Args:
        rows: how many.
    """

    def __init__(self, rows: int) -> None:
        self._counts = np.zeros((rows, BUCKETS), np.int64)
        self._sums_us = np.zeros(rows, np.float64)

    def add(self, durations_us: NDArray[np.int64]) -> None:
        """Add durations, shape (rows, n), whole microseconds."""
        rows, n = durations_us.shape
        if n == 0:
            return
        buckets = np.searchsorted(_BOUNDS_US, durations_us)  # a duration on a bound belongs below it
        buckets += np.arange(rows)[:, None] * BUCKETS
        self._counts += np.bincount(buckets.ravel(), minlength=rows * BUCKETS).reshape(rows, BUCKETS)
        self._sums_us += durations_us.sum(axis=1)

    def snapshot(self, row: int) -> HistogramSnapshot:
        """Return one histogram. Thread: any."""
        counts = self._counts[row].copy()
        return HistogramSnapshot(tuple(counts.tolist()), float(self._sums_us[row]) / 1e6)

"""Numbers about numbers: medians of repeats with their spread, and a slope with its confidence."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

BLOCKS = 10
STUDENT_T_95 = 2.306
"""Two-sided 95 % of Student's t with BLOCKS - 2 degrees of freedom."""


def middle(repeats: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the median of every number, the other values of the last repeat, and all repeats under `repeats`."""
    names = [name for name, value in repeats[0].items() if isinstance(value, int | float)]
    medians = {name: statistics.median(repeat[name] for repeat in repeats) for name in names}
    return dict(repeats[-1]) | medians | {"repeats": list(repeats)}


@dataclass(frozen=True, slots=True)
class Slope:
    """How fast something grows.

    Attributes:
        per_hour: least-squares slope, units an hour.
        low: lower end of its 95 % confidence interval.
        high: upper end.
    """

    per_hour: float
    low: float
    high: float


def slope(times_s: Sequence[float], values: Sequence[float]) -> Slope | None:
    """Return the slope of `values` over `times_s`, or None of fewer than three samples a block.

    Samples of memory hang together, and a plain fit would take their number for certainty. So the line is fitted to
    the means of BLOCKS stretches of equal length, which are taken for independent.
    """
    if len(values) < 3 * BLOCKS:
        return None
    times = np.asarray([block.mean() for block in np.array_split(np.asarray(times_s, float), BLOCKS)]) / 3600
    means = np.asarray([block.mean() for block in np.array_split(np.asarray(values, float), BLOCKS)])
    centred = times - times.mean()
    spread = float((centred**2).sum())
    steepness = float((centred * means).sum()) / spread
    residuals = means - means.mean() - steepness * centred
    error = float(np.sqrt((residuals**2).sum() / (BLOCKS - 2) / spread))
    return Slope(steepness, steepness - STUDENT_T_95 * error, steepness + STUDENT_T_95 * error)


def significant(value: Any, digits: int = 5) -> Any:  # noqa: ANN401 - JSON
    """Return JSON data with every float rounded to so many significant digits."""
    match value:
        case bool() | int() | str() | None:
            return value
        case float() if math.isnan(value):
            return None  # JSON has no word for it
        case float():
            return float(f"{value:.{digits}g}")
        case dict():
            return {name: significant(each, digits) for name, each in value.items()}
        case _:
            return [significant(each, digits) for each in value]


def jain_index(values: Sequence[float]) -> float:
    """Return Jain's index of fairness: 1 if all values are equal, 1/n if one of n has all; 0 if all are 0."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 0.0

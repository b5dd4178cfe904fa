"""Detects the end of the warm-up, and whether there is a steady state.

MSER-5 (White, 1997) cuts the start of a series where the standard error of the rest is smallest. The series here is not
the latency of frames but the median latency of short stretches of time, smoothed, and a cut is made only if the
beginning of the run differs from the rest. MSER alone would take a stall in the middle of a run for the end of a
warm-up and cut it away, and load tests exist to find stalls. Pure functions.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_FRAMES_PER_STRETCH = 10
_MAX_STRETCHES = 200
_BATCH = 5  # the 5 of MSER-5
_MIN_BATCHES = 4
_USUAL = (0.05, 0.95)  # quantiles between which the rest of the series usually lies
_TREND_Z = 3.29  # two-sided chance of 0.001 that a series without a trend shows one
_TREND_SHARE = 0.25  # a drift smaller than this share of the level does not matter ...
_TREND_FLOOR_MS = 1.0  # ... nor one below this


@dataclass(frozen=True, slots=True)
class Steady:
    """The result for one run.

    `cut_s`: frames due earlier than this are warm-up. `reason`: the reason why there is no steady state; empty if there
    is one.
    """

    cut_s: float
    reason: str = ""


def mser5(series: Floats) -> int:
    """Return how many leading values of `series` to cut; a multiple of 5, at most half of it."""
    batches = len(series) // _BATCH
    if batches < _MIN_BATCHES:
        return 0
    means = series[: batches * _BATCH].reshape(batches, _BATCH).mean(axis=1)
    best, best_error = 0, math.inf
    for cut in range(batches // 2 + 1):
        rest = means[cut:]
        error = float(np.sum((rest - rest.mean()) ** 2)) / len(rest) ** 2
        if error < best_error * (1 - 1e-9):  # the earliest cut wins among equals
            best, best_error = cut, error
    return best * _BATCH


def find_steady(latency_ms: Floats, due_s: Floats, duration_s: float) -> Steady:
    """Return the warm-up cut of a run and whether the rest is steady.

    Args:
        latency_ms: of the answered frames.
        due_s: due time of each, seconds from the start; same shape.
        duration_s: of the run.
    """
    medians, starts_s = stretch_medians(latency_ms, due_s, duration_s)
    if len(medians) < _BATCH * _MIN_BATCHES:
        return Steady(0.0, f"{len(latency_ms)} answers are too few to find a steady state")
    cut = warm_up(medians)
    cut_s = float(starts_s[cut]) if cut else 0.0
    rest = medians[cut:]
    drift_ms = theil_sen(rest) * len(rest)
    level_ms = float(np.median(rest))
    if mann_kendall(rest) > _TREND_Z and abs(drift_ms) > max(_TREND_FLOOR_MS, _TREND_SHARE * level_ms):
        change = f"{'rises' if drift_ms > 0 else 'falls'} by {abs(drift_ms):.1f} ms"
        return Steady(cut_s, f"no steady state: after {cut_s:.1f} s the median latency still {change}")
    return Steady(cut_s)


def warm_up(series: Floats) -> int:
    """Return how many leading values are warm-up: MSER-5's cut, if the series begins outside its usual range."""
    cut = mser5(_smoothed(series))
    if cut == 0:
        return 0
    low, high = np.quantile(series[cut:], _USUAL)
    beginning = float(np.median(series[: max(1, cut // 2)]))
    return 0 if low <= beginning <= high else cut


def _smoothed(series: Floats) -> Floats:
    """Return the running median over five values, which a shorter stall does not move."""
    padded = np.pad(series, _BATCH // 2, mode="edge")
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(padded, _BATCH), axis=1), dtype=np.float64)


def stretch_medians(latency_ms: Floats, due_s: Floats, duration_s: float) -> tuple[Floats, Floats]:
    """Return the median latency of equal stretches of time that contain any frame, and their start times."""
    stretches = min(_MAX_STRETCHES, len(latency_ms) // _FRAMES_PER_STRETCH)
    if stretches == 0:
        return np.zeros(0), np.zeros(0)
    length_s = duration_s / stretches
    owner = np.minimum((due_s / length_s).astype(np.int64), stretches - 1)
    order = np.argsort(owner, kind="stable")
    parts = np.split(latency_ms[order], np.flatnonzero(np.diff(owner[order])) + 1)
    starts_s = np.unique(owner) * length_s
    return np.array([np.median(part) for part in parts]), starts_s


def mann_kendall(series: Floats) -> float:
    """Return how many standard deviations the count of rising pairs is from that of a series without a trend."""
    count = len(series)
    if count < 4:
        return 0.0
    signs = np.sign(series[None, :] - series[:, None])
    score = float(np.triu(signs, 1).sum())
    variance = count * (count - 1) * (2 * count + 5) / 18
    return abs(score) / math.sqrt(variance)


def theil_sen(series: Floats) -> float:
    """Return the median slope per step over all pairs."""
    rows, columns = np.triu_indices(len(series), 1)
    return float(np.median((series[columns] - series[rows]) / (columns - rows))) if len(rows) else 0.0

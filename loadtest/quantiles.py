"""Quantiles of latencies, and their confidence intervals.

Two intervals for one quantile. Order statistics: the ranks between which the true quantile lies by the binomial law;
exact for independent samples of any distribution. Block bootstrap: whole stretches of time are resampled,
because the frames of one stall are not independent. The wider of the two is reported. All functions are pure; arrays
are 1-D float64 in any unit.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
EARLY_STOPPING_CONFIDENCE = 0.99  # MLPerf's
MIN_BLOCKS = 10
MIN_BLOCK_S = 1.0
_MAX_BLOCKS = 60
_REPLICATES = 1000
_TOP_SHARE = 0.1  # the bootstrap of p99 rarely needs ranks below the highest tenth; when it does, it uses all


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval, and its method."""

    low: float
    high: float
    method: str

    @property
    def width(self) -> float:
        """The distance between the two ends."""
        return self.high - self.low


def quantile(samples: Floats, share: float) -> float:
    """Return the smallest sample that at least `share` of the samples do not exceed; NaN for none."""
    if len(samples) == 0:
        return math.nan
    rank = max(1, math.ceil(share * len(samples) - 1e-9))
    return float(np.partition(samples, rank - 1)[rank - 1])


def min_samples(share: float, confidence: float = CONFIDENCE) -> int:
    """Return how many samples a two-sided interval for this quantile needs at least."""
    return math.ceil(math.log((1 - confidence) / 2) / math.log(max(share, 1 - share)))


def interval_ranks(count: int, share: float, confidence: float = CONFIDENCE) -> tuple[int, int] | None:
    """Return the ranks (from 1) whose samples enclose the quantile; None with too few samples."""
    tail = (1 - confidence) / 2
    cumulative = _binomial_cdf(count, share)
    # P(quantile < sample of rank l) = P(fewer than l samples below it) = cdf[l - 1].
    low = int(np.searchsorted(cumulative, tail, side="right"))
    high = int(np.searchsorted(cumulative, 1 - tail, side="left")) + 1
    return (low, high) if low >= 1 and high <= count else None


def order_statistics(samples: Floats, share: float, confidence: float = CONFIDENCE) -> Interval | None:
    """Return the binomial interval; None with too few samples."""
    ranks = interval_ranks(len(samples), share, confidence)
    if ranks is None:
        return None
    ordered = np.sort(samples)
    return Interval(float(ordered[ranks[0] - 1]), float(ordered[ranks[1] - 1]), "order statistics")


def block_count(span_s: float) -> int:
    """Return the number of blocks for a run of `span_s` seconds; 0 if it is too short for MIN_BLOCKS."""
    blocks = min(_MAX_BLOCKS, int(span_s / MIN_BLOCK_S + 1e-9))
    return blocks if blocks >= MIN_BLOCKS else 0


def block_bootstrap(samples: Floats, at_s: Floats, share: float, *, seed: int = 1) -> Interval | None:
    """Return the percentile interval over resampled blocks of time; None if the run is too short.

    Args:
        samples: one per frame.
        at_s: when each frame was due, in seconds; same shape.
        share: which quantile, 0..1.
        seed: of the resampling, so that a report can be reproduced.
    """
    if len(samples) == 0:
        return None
    span_s = float(at_s.max() - at_s.min())
    blocks = block_count(span_s + 0.5)  # the last frame is due a little before the end
    if not blocks:
        return None
    block = np.minimum(((at_s - at_s.min()) / (span_s or 1.0) * blocks).astype(np.int64), blocks - 1)
    estimates = bootstrap_quantiles(samples, block, blocks, share, seed)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(estimates, [tail, 1 - tail])
    return Interval(float(low), float(high), f"bootstrap of {blocks} blocks")


def bootstrap_quantiles(samples: Floats, block: npt.NDArray[np.int64], blocks: int, share: float, seed: int) -> Floats:
    """Return one estimate of the quantile per resampling of the blocks.

    A resampling is a weight per block; the search for the quantile starts at the largest sample, near the relevant
    ranks.
    """
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(blocks, np.full(blocks, 1 / blocks), _REPLICATES)
    totals = weights @ np.bincount(block, minlength=blocks)
    order = np.argsort(samples)[::-1]
    above = totals - np.maximum(1, np.ceil(share * totals - 1e-9))  # samples that lie above the quantile
    top = order[: max(1000, int(len(order) * max(_TOP_SHARE, 3 * (1 - share))))]
    estimates = np.empty(_REPLICATES)
    for index in range(_REPLICATES):
        chosen = top
        passed = np.cumsum(weights[index][block[chosen]])
        if passed[-1] <= above[index]:
            chosen = order
            passed = np.cumsum(weights[index][block[chosen]])
        place = min(int(np.searchsorted(passed, above[index], side="right")), len(chosen) - 1)
        estimates[index] = samples[chosen[place]]
    return estimates


def wider(first: Interval | None, second: Interval | None) -> Interval | None:
    """Return the wider of two intervals; None unless both could be made."""
    if first is None or second is None:
        return None
    return first if first.width >= second.width else second


def early_stopping_estimate(
    samples: Floats, share: float, confidence: float = EARLY_STOPPING_CONFIDENCE
) -> float | None:
    """Return MLPerf's early-stopping estimate: an upper bound of the quantile with this confidence.

    With a probability of at most 1 - confidence, `over` or fewer of all samples lie above the true quantile. So the
    sample of that rank from the top is an upper bound. None if there are too few samples: p99 needs 662.
    """
    count = len(samples)
    if count == 0:
        return None
    over = int(np.searchsorted(_binomial_cdf(count, 1 - share), 1 - confidence, side="right")) - 1
    return float(np.sort(samples)[count - over]) if over >= 1 else None


def _binomial_cdf(count: int, chance: float) -> Floats:
    """Return P(X <= k) for k = 0..count of a binomial law, from its logarithms so that it holds for millions."""
    successes = np.arange(count + 1)
    log_factorials = _log_factorials(count)
    log_chances = (
        log_factorials[count]
        - log_factorials
        - log_factorials[::-1]
        + successes * math.log(chance)
        + (count - successes) * math.log1p(-chance)
    )
    return np.asarray(np.minimum(np.cumsum(np.exp(log_chances)), 1.0), dtype=np.float64)


def _log_factorials(count: int) -> Floats:
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count + 1, dtype=np.float64)))])

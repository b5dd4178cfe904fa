"""Two ways of doing the same, measured in turn: how much more the second costs, with an interval for that.

Neighbouring runs share what the machine is doing, so that their quotient is compared and not their averages. The median
of many quotients is not moved by the few runs that something disturbed; its interval comes from the order of the
quotients alone, for any distribution.
"""

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

CONFIDENCE = 0.95
RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and where it lies with 95 % confidence."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(slots=True)
class Pairs:
    """Costs of neighbouring runs, at the same place."""

    first: list[float] = field(default_factory=list)
    second: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        """Second over first, pair by pair."""
        return [b / a for a, b in zip(self.first, self.second, strict=True)]

    def median_ratio(self) -> Interval:
        """Return the median of the quotients."""
        return median_interval(self.ratios)

    def ratio_of_sums(self) -> Interval:
        """Return the quotient of the sums: rare and costly events count here, and so do disturbances of a run."""
        chance = random.Random(1)  # noqa: S311 - the same interval for the same numbers
        pairs = [*zip(self.first, self.second, strict=True)]
        resampled = []
        for _ in range(RESAMPLES):
            drawn = chance.choices(pairs, k=len(pairs))
            resampled.append(sum(b for _, b in drawn) / sum(a for a, _ in drawn))
        resampled.sort()
        tail = round(RESAMPLES * (1 - CONFIDENCE) / 2)
        return Interval(sum(self.second) / sum(self.first), resampled[tail], resampled[-tail - 1])


def median_interval(values: Sequence[float]) -> Interval:
    """Return the median, and the values between which that of the distribution lies, by the binomial distribution."""
    ordered = sorted(values)
    n = len(ordered)
    below = 0.0
    rank = 0  # values that may be left out at each end
    while rank < n // 2 and below + math.comb(n, rank) / 2**n <= (1 - CONFIDENCE) / 2:
        below += math.comb(n, rank) / 2**n
        rank += 1
    index = max(0, rank - 1)
    return Interval(statistics.median(ordered), ordered[index], ordered[n - 1 - index])

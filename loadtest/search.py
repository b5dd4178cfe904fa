"""Finds the highest load that a server carries within its latency target. Pure: it decides the next load to try.

Theory of operation. A load passes when the upper end of p99's interval is within the target and at most a given share
of the frames is dropped. From the first load the search doubles until one fails (or halves until one passes), then
bisects until the two ends are close enough. Noise can let a load pass by luck, so the best one is tried again; if it
fails once, it becomes the upper end and the search goes on below it. The answer is an interval: the highest load that
passed every time, and the lowest that failed.
"""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from forebay_server.loadtest.errors import UsageError

_MAX_TRIALS = 40
_INVALID_RUNS = 3  # of one load, before the generator counts as its limit: one may be another process's fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """The conditions for a load to pass.

    `p99_ms`: the upper end of the interval must not exceed it. `dropped_share`: of the offered frames, 0..1.
    """

    p99_ms: float
    dropped_share: float = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One measurement. `p99_upper_ms` None: the run could not give it, which does not pass."""

    load: float
    p99_ms: float | None
    p99_upper_ms: float | None
    dropped_share: float
    is_valid: bool = True  # False: the generator was the bottleneck
    is_interrupted: bool = False  # the user ended it early, so that it says nothing about its load
    remark: str = ""

    def passes(self, objective: Objective) -> bool:
        """Return whether the load is carried."""
        within = self.p99_upper_ms is not None and self.p99_upper_ms <= objective.p99_ms
        return self.is_valid and within and self.dropped_share <= objective.dropped_share


@dataclass(slots=True)
class Capacity:
    """The answer. `highest_passing` None: not even the lowest load passed; `lowest_failing` None: none failed.

    `is_interrupted`: there is no answer; the two are what had been found by then.
    """

    highest_passing: float | None
    lowest_failing: float | None
    trials: list[Trial] = field(default_factory=list)
    remark: str = ""
    is_interrupted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The range of the search: from `first`, within `lowest`..`highest`, until the ends differ by `resolution`.

    `is_whole`: loads are whole numbers (cameras). `resolution` is a share of the load, at least 1 if whole.
    """

    first: float = 1.0
    lowest: float = 1.0
    highest: float = 4096.0
    resolution: float = 0.05
    is_whole: bool = True
    repeats: int = 3

    def __post_init__(self) -> None:
        """Reject bounds that do not enclose anything."""
        if not 0 < self.lowest <= self.first <= self.highest:
            raise UsageError("the search needs 0 < lowest <= first <= highest")
        if self.repeats < 1 or not 0 < self.resolution < 1:
            raise UsageError("repeats must be at least 1 and the resolution between 0 and 1")


Measure = Callable[[float], Awaitable[Trial]]


async def find_capacity(measure: Measure, objective: Objective, bounds: Bounds) -> Capacity:
    """Search; every call of `measure` is one run at a load."""
    return await _Search(measure, objective, bounds).run()


class _Search:
    def __init__(self, measure: Measure, objective: Objective, bounds: Bounds) -> None:
        self._measure = measure
        self._objective = objective
        self._bounds = bounds
        self._passed: dict[float, int] = {}  # load -> number of passes
        self._invalid: dict[float, int] = {}
        self._low: float | None = None
        self._high: float | None = None
        self._trials: list[Trial] = []
        self._remark = ""

    async def run(self) -> Capacity:
        while len(self._trials) < _MAX_TRIALS:
            load = self._next()
            if load is None:
                return Capacity(self._low, self._high, self._trials, self._remark)
            trial = await self._measure(load)
            if trial.is_interrupted:
                return Capacity(self._low, self._high, self._trials, self._remark, is_interrupted=True)
            self._trials.append(trial)
            if not trial.is_valid:
                self._invalid[load] = self._invalid.get(load, 0) + 1
                if self._invalid[load] < _INVALID_RUNS:
                    continue
                self._remark = f"the generator, not the server, was the limit at {load:g}"
            self._take(load, passes=trial.passes(self._objective))
        return Capacity(self._confirmed(), self._high, self._trials, f"gave up after {_MAX_TRIALS} runs")

    def _take(self, load: float, *, passes: bool) -> None:
        if passes:
            self._passed[load] = self._passed.get(load, 0) + 1
            self._low = load
            return
        self._high = load if self._high is None else min(self._high, load)
        self._passed.pop(load, None)
        self._low = max((passed for passed in self._passed if passed < self._high), default=None)

    def _next(self) -> float | None:
        """Return the load to try next; None when the answer is known."""
        bounds, low, high = self._bounds, self._low, self._high
        if low is None and high is None:
            return bounds.first
        if low is None:
            return self._below(high or bounds.lowest)
        if high is None and low < bounds.highest:
            return min(self._rounded(low * 2), bounds.highest)
        if high is not None and not self._is_close(low, high):
            return self._between(low, high)
        return low if self._passed[low] < bounds.repeats else None

    def _below(self, high: float) -> float | None:
        if high <= self._bounds.lowest:
            return None
        return max(self._rounded(high / 2), self._bounds.lowest)

    def _is_close(self, low: float, high: float) -> bool:
        if self._bounds.is_whole and high - low <= 1:
            return True
        return high - low <= self._bounds.resolution * high

    def _between(self, low: float, high: float) -> float:
        middle = self._rounded((low + high) / 2)
        return min(max(middle, low + 1), high - 1) if self._bounds.is_whole else middle

    def _rounded(self, load: float) -> float:
        return float(math.floor(load)) if self._bounds.is_whole else load

    def _confirmed(self) -> float | None:
        return max((load for load, count in self._passed.items() if count >= self._bounds.repeats), default=None)

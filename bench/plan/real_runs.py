"""Real runs that correct a simulation: the number of cameras to try next, and the slowdown that follows. Pure.

Theory of operation
    A simulation promises a number of cameras. A real server gets that number first. If the server keeps the target,
    the next number is larger; if not, smaller; between the two ends the search bisects, as `forebay load search` does.

    The correction is one factor for all times of the simulation, the slowdown. The CPU time of a frame is measured
    well: it is the same in the real runs. Only the duration of the same work differs: the threads of a real server
    also wait for each other, and no account of CPU time has that. Of all slowdowns
    with which the simulation agrees with every real run, the one nearest to 1 is taken: runs that the simulation
    foretold change nothing.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

STEP_DOWN, STEP_UP = 0.85, 1.1
"""From a number to the next one while all runs failed, or all passed."""
MOST_ABOVE = 1.2
"""Of the promised number, from which on no more cameras are tried: more than the cores have is not promised."""
CLOSE = 0.06
"""Share of the cameras by which the two ends may differ in the end: `forebay load search` stops at 0.05."""
ENOUGH_FRAMES = 300
"""Of a run that may show that more cameras fit than the simulation promises: one per cent dropped are three frames. Of
three cameras that send two frames a second, a run of 72 frames dropped none and a longer one 2.2 %."""
SLOWDOWNS = tuple(round(1.025**power, 4) for power in range(-7, 48))
"""From 0.84 to 3.2, in steps finer than the numbers of cameras that are tried."""


@dataclass(frozen=True, slots=True)
class RealRun:
    """One run of real cameras before a real server.

    Attributes:
        cameras: that sent.
        passes: whether they kept the target.
        frames: that they offered.
        dropped_share: of these frames, 0..1.
        p99_ms: of the answered frames; None without any.
        seconds: for which they sent.
        others_cores: that other programs used meanwhile.
        remark: why a run that kept the target does not measure the server, as its cameras sent late; else empty.
        is_disturbed: whether other programs used so much of the cores that the run counts neither way.
    """

    cameras: int
    passes: bool
    frames: int
    dropped_share: float
    p99_ms: float | None
    seconds: float
    others_cores: float = 0.0
    remark: str = ""
    is_disturbed: bool = False

    def __post_init__(self) -> None:
        """Reject numbers that no run can have. Raises ValueError."""
        if type(self.cameras) is not int or self.cameras < 1 or not 0.0 <= self.dropped_share <= 1.0:
            raise ValueError(f"a real run has at least 1 camera and drops 0 to 1 of the frames, not {self}")
        _check_numbers(frames=self.frames, seconds=self.seconds, others_cores=self.others_cores)
        _check_numbers(p99_ms=0.0 if self.p99_ms is None else self.p99_ms)


@dataclass(frozen=True, slots=True)
class RealRuns:
    """The real runs on the machine that measured, and the traffic that they had.

    Attributes:
        fps: frames a second of each camera.
        budget_ms: latency budget of a frame.
        delivery: of the streams, `latest` or `every`.
        p99_ms: target of the runs.
        dropped_share: target of the runs, 0..1.
        promised: cameras that the simulation had said before; 0: none, so that nothing was tried.
        runs: in order.
        doubt: why the runs do not correct the simulation; empty if they do.
    """

    fps: float
    budget_ms: float
    delivery: str
    p99_ms: float
    dropped_share: float
    promised: int
    runs: tuple[RealRun, ...] = ()
    doubt: str = ""

    def __post_init__(self) -> None:
        """Reject numbers that no runs can have. Raises ValueError."""
        _check_numbers(fps=self.fps, budget_ms=self.budget_ms, p99_ms=self.p99_ms, dropped_share=self.dropped_share)
        _check_numbers(promised=self.promised)

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> "RealRuns":
        """Read the data of `dataclasses.asdict`. Raises TypeError, KeyError or ValueError for anything else."""
        return cls(**{**data, "runs": tuple(RealRun(**run) for run in data["runs"])})


def _check_numbers(**values: object) -> None:
    for name, value in values.items():
        if not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ValueError(f"{name} of real runs must be a number of at least 0, not {value!r}")


def ends(runs: Sequence[RealRun]) -> tuple[int, int | None]:
    """Return the largest number that kept the target below all that did not (0: none), and the smallest that did not.

    The second is None if every run kept the target. Runs that were disturbed do not count, nor does the first of a
    number whose cameras sent late: `forebay load search` repeats such a run too.
    """
    late = [run.cameras for run in runs if run.remark]
    counted = [run for run in runs if not run.is_disturbed and not (run.remark and late.count(run.cameras) == 1)]
    failed = min((run.cameras for run in counted if not run.passes), default=None)
    kept = [run.cameras for run in counted if run.passes and (failed is None or run.cameras < failed)]
    return max(kept, default=0), failed


def next_count(promised: int, runs: Sequence[RealRun]) -> int | None:
    """Return the number of cameras to try next; None when the two ends are close enough or nothing is left to try.

    A number whose run does not count is tried again. More than is promised is tried after runs of enough frames.
    """
    low, high = ends(runs)
    if not low and high is None:
        return promised or None
    if high is None:
        if min(run.frames for run in runs if run.cameras == low) < ENOUGH_FRAMES:
            return None
        return None if low >= promised * MOST_ABOVE else max(low + 1, round(low * STEP_UP))
    if not low:
        return min(high - 1, math.floor(high * STEP_DOWN)) or None
    return None if high - low <= max(1.0, CLOSE * high) else (low + high) // 2


def slowdown_of(runs: Sequence[RealRun], carries: Callable[[int, float], bool]) -> float:
    """Return the slowdown nearest to 1 with which the simulation agrees with the runs.

    Where no slowdown agrees with all of them, it is one with which the number that failed does not fit.

    Args:
        runs: at least one.
        carries: whether so many cameras fit in the simulation with this slowdown. Where they do not, they do not with
            any larger one.
    """
    low, high = ends(runs)
    most = _last(lambda slowdown: carries(low, slowdown)) if low else SLOWDOWNS[-1]
    least = _first(lambda slowdown: not carries(high, slowdown)) if high is not None else SLOWDOWNS[0]
    return max(least, min(most, 1.0))


def _first(holds: Callable[[float], bool]) -> float:
    """Return the smallest slowdown for which it holds; 1 is looked at first, because it decides most often."""
    one = SLOWDOWNS.index(1.0)
    low, high = (0, one) if holds(1.0) else (one + 1, len(SLOWDOWNS))
    place = bisect_left(SLOWDOWNS, True, low, high, key=holds)  # noqa: FBT003
    return SLOWDOWNS[min(place, len(SLOWDOWNS) - 1)]


def _last(holds: Callable[[float], bool]) -> float:
    """Return the largest slowdown for which it holds, or the smallest of all."""
    one = SLOWDOWNS.index(1.0)
    low, high = (one + 1, len(SLOWDOWNS)) if holds(1.0) else (0, one)
    place = bisect_left(SLOWDOWNS, True, low, high, key=lambda slowdown: not holds(slowdown))  # noqa: FBT003
    return SLOWDOWNS[max(0, place - 1)]

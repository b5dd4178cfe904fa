"""Threads that share the cores of a machine, in virtual time.

Theory of operation
    Every thread that has work gets the same share of the cores, at most one core for each of its strands (an engine
    with several threads has several). So all of them advance at one rate, and one counter of *work done since the
    start* serves all: a job that begins now ends when the counter has risen by its work. The counter is exact between
    two events, at which the number of busy strands or the speed changes; no time slice is simulated.

    Other programs take a fixed part of the cores away. The cores' speed follows from the caller: a core of a virtual
    machine shares its caches and arithmetic units with neighbours that come and go.
"""

import heapq
import itertools
from collections.abc import Callable
from typing import NamedTuple

LEAST_CORES = 0.05
"""Cores that are left at least: with none the simulation would not end."""


class _Job(NamedTuple):
    ends_at: float  # of the counter
    order: int
    strands: int
    on_end: Callable[[int], None]


class SharedCores:
    """See the module's theory of operation.

    Args:
        cores: that these threads can have.

    Attributes:
        busy_ns: core-nanoseconds used so far.
    """

    def __init__(self, cores: float) -> None:
        self.busy_ns = 0.0
        self._cores = max(LEAST_CORES, cores)
        self._jobs: list[_Job] = []
        self._orders = itertools.count()
        self._strands = 0
        self._done = 0.0  # nanoseconds of work that a thread with a job all the time would have done
        self._now_ns = 0
        self._speed = 1.0

    def set_speed(self, speed: float) -> None:
        """From now on, let a core do `speed` nanoseconds of work in a nanosecond."""
        self._speed = speed

    def begin(self, work_ns: float, on_end: Callable[[int], None], strands: int = 1) -> None:
        """Begin a job now.

        Args:
            work_ns: its duration with the cores to itself.
            on_end: called with the instant at which it ends.
            strands: cores that it can use at once.
        """
        heapq.heappush(self._jobs, _Job(self._done + work_ns, next(self._orders), strands, on_end))
        self._strands += strands

    def next_end_ns(self) -> int | None:
        """Return the instant of the next end of a job; None without a job."""
        if not self._jobs:
            return None
        return self._now_ns + max(0, round((self._jobs[0].ends_at - self._done) / self._rate()))

    def advance(self, now_ns: int) -> None:
        """Let time pass to `now_ns`, which is not after the next end."""
        passed_ns = now_ns - self._now_ns
        self._done += passed_ns * self._rate()
        self.busy_ns += passed_ns * min(self._cores, self._strands)
        self._now_ns = now_ns

    def end_due(self) -> bool:
        """End the job that is due now; return whether there was one."""
        if not self._jobs or self.next_end_ns() != self._now_ns:
            return False
        job = heapq.heappop(self._jobs)
        self._strands -= job.strands
        self._done = max(self._done, job.ends_at)  # the rest from rounding to nanoseconds
        job.on_end(self._now_ns)
        return True

    def _rate(self) -> float:
        return self._speed * (min(1.0, self._cores / self._strands) if self._strands else 1.0)

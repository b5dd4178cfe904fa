"""Measures how loaded a server is, from sums that only rise. Pure.

Owner: one thread.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

BUSY = 0.85
"""Of the busiest model's instances: beyond this, waiting times grow faster than the load."""
NOT_IN_TIME = 0.01
MOST_MISSED = 0.5  # share of the frames not in time that says how much is offered: a pause misses all for a second


class Totals(NamedTuple):
    """Sums since the start of a server.

    Attributes:
        execute_ns: execution time, and number of instances, of each version that serves.
        frames: frames that ended on streams.
        not_in_time: of these, the late, the expired and the overloaded ones.
        requests: frames and requests that ended.
        failures: of these, those that the server failed on.
    """

    execute_ns: Mapping[object, tuple[int, int]]
    frames: int = 0
    not_in_time: int = 0
    requests: int = 0
    failures: int = 0


@dataclass(frozen=True, slots=True)
class Load:
    """The load between two readings.

    Attributes:
        busy: share of its instances' time that executions of the busiest model took; 0 without one.
        not_in_time: share of the frames that ended.
        requests_per_s: frames and requests that ended.
        failures_per_s: of these, those that the server failed on.
        instances: of the busiest model.
        has_room: whether streams of other servers are welcome.
    """

    busy: float = 0.0
    not_in_time: float = 0.0
    requests_per_s: float = 0.0
    failures_per_s: float = 0.0
    instances: int = 1
    has_room: bool = True

    @property
    def offered(self) -> float:
        """The share of its capacity that the server is asked for: frames that are not in time were too many."""
        return self.utilization / (1 - min(self.not_in_time, MOST_MISSED))

    @property
    def utilization(self) -> float:
        """The share of its capacity that the server uses: 1 at least where frames are not in time."""
        return max(self.busy, 1.0) if self.not_in_time > NOT_IN_TIME else self.busy


class LoadMeter:
    """See the module."""

    def __init__(self) -> None:
        self._last: tuple[int, Totals] | None = None

    def read(self, now_ns: int, totals: Totals) -> Load:
        """Return the load since the last reading. Sums of processes that have gone may make a total fall."""
        last, self._last = self._last, (now_ns, totals)
        if last is None or now_ns <= last[0]:
            return Load()
        then_ns, before = last
        spent_ns = now_ns - then_ns
        frames = totals.frames - before.frames
        busy = [
            ((execute_ns - before.execute_ns[version][0]) / (instances * spent_ns), instances)
            for version, (execute_ns, instances) in totals.execute_ns.items()
            if version in before.execute_ns and instances
        ]
        busiest, instances = max(busy, default=(0.0, 1))
        return Load(
            max(0.0, busiest),
            max(0, totals.not_in_time - before.not_in_time) / frames if frames > 0 else 0.0,
            max(0, totals.requests - before.requests) * 1e9 / spent_ns,
            max(0, totals.failures - before.failures) * 1e9 / spent_ns,
            instances,
        )

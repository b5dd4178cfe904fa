"""Start and end times of a simulated device's operations, from their costs and dependencies.

Operations of one lane (a device stream) run in order, those of different lanes at the same time. An operation starts
when it was enqueued, its lane is free, and all points it waits for are reached: the latest of these. A held lane starts
no new operation; operations that depend on it have no end yet (`Point.done_ns` is None) until the lane is released.

Pure: it reads no clock and takes no lock; every call gets the current time.
"""

from collections import deque
from dataclasses import dataclass, field

HISTORY_OPERATIONS = 4096
"""Number of the latest operations kept for tests and benchmarks, which compute overlap from them."""


@dataclass(slots=True)
class Point:
    """The end of an operation; `done_ns` is None while it is unknown."""

    done_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation that costs time, as it was scheduled."""

    lane: str
    label: str
    start_ns: int
    end_ns: int


@dataclass(frozen=True, slots=True)
class _Planned:
    label: str
    cost_ns: int
    enqueued_ns: int
    after: Point | None
    end: Point


@dataclass(slots=True)
class Lane:
    """Operations that run one after the other. Made by `Timeline.lane`."""

    name: str
    free_ns: int = 0
    is_held: bool = False
    planned: deque[_Planned] = field(default_factory=deque)


class Timeline:
    """All lanes of one device. Owner: the device's lock."""

    def __init__(self) -> None:
        self._lanes: list[Lane] = []
        self.history: deque[Operation] = deque(maxlen=HISTORY_OPERATIONS)

    def lane(self, name: str) -> Lane:
        """Add a lane."""
        lane = Lane(name)
        self._lanes.append(lane)
        return lane

    def remove(self, lane: Lane) -> None:
        """Remove a lane without outstanding operations."""
        self._lanes.remove(lane)

    def enqueue(self, lane: Lane, label: str, cost_ns: int, now_ns: int, after: Point | None = None) -> Point:
        """Append an operation to `lane`, to start no earlier than `after`. Returns its end."""
        end = Point()
        lane.planned.append(_Planned(label, cost_ns, now_ns, after, end))
        self._resolve()
        return end

    def hold(self, lane: Lane) -> None:
        """Start no operation of `lane` that has no end yet, nor any later one."""
        lane.is_held = True

    def release(self, lane: Lane, now_ns: int) -> None:
        """Let the operations of a held lane start, from `now_ns` on."""
        if lane.is_held:
            lane.is_held = False
            lane.free_ns = max(lane.free_ns, now_ns)
            self._resolve()

    def _resolve(self) -> None:
        """Compute the end of every operation whose start is known, until no further one can be computed."""
        while any(self._advance(lane) for lane in self._lanes):
            pass

    def _advance(self, lane: Lane) -> bool:
        has_moved = False
        while lane.planned and not lane.is_held:
            planned = lane.planned[0]
            after_ns = 0 if planned.after is None else planned.after.done_ns
            if after_ns is None:
                break
            lane.planned.popleft()
            start_ns = max(lane.free_ns, planned.enqueued_ns, after_ns)
            lane.free_ns = planned.end.done_ns = start_ns + planned.cost_ns
            if planned.cost_ns:
                self.history.append(Operation(lane.name, planned.label, start_ns, lane.free_ns))
            has_moved = True
        return has_moved

"""Start and end times of a simulated device's operations, from their costs and dependencies.

Operations of one queue (a device stream) run in order, those of different queues at the same time. An operation starts
when it was enqueued, its queue is free, and all points it waits for are reached: the latest of these. A held queue
starts no new operation; operations that depend on it have no end yet (`Point.done_ns` is None) until the queue is
released.

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

    queue: str
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


@dataclass(slots=True, eq=False)
class DeviceQueue:
    """Operations that run one after the other. Made by `Schedule.queue`."""

    name: str
    free_ns: int = 0
    is_held: bool = False
    planned: deque[_Planned] = field(default_factory=deque)


class Schedule:
    """All queues of one device. Owner: the device's lock."""

    def __init__(self) -> None:
        self._queues: list[DeviceQueue] = []
        self.history: deque[Operation] = deque(maxlen=HISTORY_OPERATIONS)

    def queue(self, name: str) -> DeviceQueue:
        """Add a queue."""
        queue = DeviceQueue(name)
        self._queues.append(queue)
        return queue

    def remove(self, queue: DeviceQueue) -> None:
        """Remove a queue without outstanding operations."""
        self._queues.remove(queue)

    def enqueue(self, queue: DeviceQueue, label: str, cost_ns: int, now_ns: int, after: Point | None = None) -> Point:
        """Append an operation to `queue`, to start no earlier than `after`. Returns its end."""
        end = Point()
        queue.planned.append(_Planned(label, cost_ns, now_ns, after, end))
        self._resolve()
        return end

    def hold(self, queue: DeviceQueue) -> None:
        """Start no operation of `queue` that has no end yet, nor any later one."""
        queue.is_held = True

    def release(self, queue: DeviceQueue, now_ns: int) -> None:
        """Let the operations of a held queue start, from `now_ns` on."""
        if queue.is_held:
            queue.is_held = False
            queue.free_ns = max(queue.free_ns, now_ns)
            self._resolve()

    def _resolve(self) -> None:
        """Compute the end of every operation whose start is known, until no further one can be computed."""
        while any(self._advance(queue) for queue in self._queues):
            pass

    def _advance(self, queue: DeviceQueue) -> bool:
        has_moved = False
        while queue.planned and not queue.is_held:
            planned = queue.planned[0]
            after_ns = 0 if planned.after is None else planned.after.done_ns
            if after_ns is None:
                break
            queue.planned.popleft()
            start_ns = max(queue.free_ns, planned.enqueued_ns, after_ns)
            queue.free_ns = planned.end.done_ns = start_ns + planned.cost_ns
            if planned.cost_ns:
                self.history.append(Operation(queue.name, planned.label, start_ns, queue.free_ns))
            has_moved = True
        return has_moved

"""When a process of a group that has ended by itself is started anew: at once, after a pause, or not any more."""

from collections import deque

from forebay_server.service.clock import Clock

MOST_RESTARTS = 20
WINDOW_NS = 60_000_000_000
FIRST_PAUSE_NS = 100_000_000
LONGEST_PAUSE_NS = 3_000_000_000


class Restarts:
    """Of one process. The first within `WINDOW_NS` is immediate; each pause is twice as long as the one before.

    Args:
        clock: source of monotonic nanoseconds.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ends_ns: deque[int] = deque()
        self._due_ns: int | None = None  # the end of a pause that was not found to be over

    def allow(self) -> bool:
        """The process has ended. Return whether it is started anew: no more than `MOST_RESTARTS` times."""
        ends_ns, now_ns = self._ends_ns, self._clock.now_ns()
        while ends_ns and now_ns - ends_ns[0] > WINDOW_NS:
            ends_ns.popleft()
        if ends_ns:
            self._due_ns = now_ns + min(FIRST_PAUSE_NS << len(ends_ns) - 1, LONGEST_PAUSE_NS)
        ends_ns.append(now_ns)
        return len(ends_ns) <= MOST_RESTARTS

    def put_off(self) -> None:
        """The process could not be started: try again after the longest pause."""
        self._due_ns = self._clock.now_ns() + LONGEST_PAUSE_NS

    def is_due(self) -> bool:
        """Return whether the process may start now."""
        if self._due_ns is not None and self._clock.now_ns() >= self._due_ns:
            self._due_ns = None
        return self._due_ns is None

    def pause_s(self) -> float | None:
        """Return the time after which to ask `is_due` again; None: it was True."""
        return None if self._due_ns is None else max(0, self._due_ns - self._clock.now_ns()) / 1e9

"""Time for the load generator: integer nanoseconds on the monotonic clock, injected so that tests can own it.

The load generator sees a server only through its wire, so it does not share the service's clock; both read
CLOCK_MONOTONIC. Nothing here blocks: waiting is done by the pacer and by the event loop.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """A monotonic clock. Thread: any."""

    def now_ns(self) -> int:
        """Return the current time in nanoseconds; only differences have a meaning."""
        ...


class MonotonicClock:
    """The real clock (CLOCK_MONOTONIC), which all processes of one host share."""

    def now_ns(self) -> int:
        """Return the current time in nanoseconds."""
        return time.monotonic_ns()


_: Clock = MonotonicClock()

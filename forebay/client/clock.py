"""Time, injected: the only module of the client that reads a clock or waits for an instant.

The library sees no module of the service, so it has a clock of its own. Integer nanoseconds, monotonic.
"""

import asyncio
import threading
import time
from typing import Protocol


class Clock(Protocol):
    """What the client needs of time. Thread: any."""

    def now_ns(self) -> int:
        """Return the current instant; only differences mean anything."""
        ...

    def wait(self, condition: threading.Condition, until_ns: int | None) -> None:
        """Wait on `condition`, which the caller holds, until notified or the instant `until_ns`. May wake early."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Suspend the calling task."""
        ...


class MonotonicClock:
    """The real clock."""

    def now_ns(self) -> int:
        """Return the current instant in nanoseconds."""
        return time.monotonic_ns()

    def wait(self, condition: threading.Condition, until_ns: int | None) -> None:
        """Wait on `condition` until notified or until the instant `until_ns`."""
        if until_ns is None:
            condition.wait()
        elif (remaining_ns := until_ns - time.monotonic_ns()) > 0:
            condition.wait(remaining_ns / 1e9)

    async def sleep(self, seconds: float) -> None:
        """Suspend the calling task for `seconds`."""
        await asyncio.sleep(seconds)


_: Clock = MonotonicClock()

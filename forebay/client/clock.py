"""Injected time: the only module of the client that reads a clock or waits for a point in time.

The library imports no module of the service, so it has a clock of its own. Integer nanoseconds, monotonic.
"""

import asyncio
import threading
import time
from typing import Protocol


class Clock(Protocol):
    """The client's interface to time. Thread: any."""

    def now_ns(self) -> int:
        """Return the current time; only differences have a meaning."""
        ...

    def wait(self, waiter: threading.Lock, until_ns: int | None) -> bool:
        """Acquire `waiter`, at the latest at the time `until_ns`; return whether it was acquired. May end early."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Suspend the calling task."""
        ...


class MonotonicClock:
    """The real clock."""

    def now_ns(self) -> int:
        """Return the current time in nanoseconds."""
        return time.monotonic_ns()

    def wait(self, waiter: threading.Lock, until_ns: int | None) -> bool:
        """Acquire `waiter`, at the latest at the time `until_ns`; return whether it was acquired."""
        if until_ns is None:
            return waiter.acquire()
        return waiter.acquire(timeout=max(0, until_ns - time.monotonic_ns()) / 1e9)

    async def sleep(self, seconds: float) -> None:
        """Suspend the calling task for `seconds`."""
        await asyncio.sleep(seconds)


_: Clock = MonotonicClock()

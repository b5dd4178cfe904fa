"""Injected time: the only module of the project that reads a clock or blocks with a timeout.

Integer nanoseconds on one monotonic clock. Code that needs the time or must wait for a point in time takes a `Clock`;
tests pass a `ManualClock` (tests/support), which moves only when the test moves it.
"""

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """A monotonic clock that can also wait. Thread: any."""

    def now_ns(self) -> int:
        """Return the current time in nanoseconds; only differences have a meaning."""
        ...

    def wait(self, condition: threading.Condition, until_ns: int | None) -> None:
        """Wait on `condition`, which the caller holds, until notified or until the time `until_ns`.

        May wake spuriously: the caller loops on its own predicate. `None` waits without a limit.
        """
        ...

    def sleep_until(self, until_ns: int) -> None:
        """Block the calling thread until the time `until_ns`; returns at once if it has passed."""
        ...


class MonotonicClock:
    """The real clock (CLOCK_MONOTONIC)."""

    now_ns = staticmethod(time.monotonic_ns)  # no call in between: a frame reads the clock some twenty-five times

    def wait(self, condition: threading.Condition, until_ns: int | None) -> None:
        """Wait on `condition` until notified or until the time `until_ns`."""
        if until_ns is None:
            condition.wait()
            return
        remaining_ns = until_ns - time.monotonic_ns()
        if remaining_ns > 0:
            condition.wait(remaining_ns / 1e9)

    def sleep_until(self, until_ns: int) -> None:
        """Block until the time `until_ns`."""
        while (remaining_ns := until_ns - time.monotonic_ns()) > 0:
            time.sleep(remaining_ns / 1e9)


_: Clock = MonotonicClock()

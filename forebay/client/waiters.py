"""Tasks that wait for a change of a stream. Owner: the event loop."""

import asyncio
from collections.abc import Callable

from forebay.client.clock import Clock
from forebay.client.monitor import Monitor


class Waiters:
    """Wakes a task when its wait has an end, and not before: of a frame's four changes, one is its result.

    Args:
        monitor: guards the data that the tasks wait for.
        clock: source of monotonic nanoseconds; it also waits.
    """

    def __init__(self, monitor: Monitor, clock: Clock) -> None:
        self._monitor = monitor
        self._clock = clock
        self._waiting: dict[asyncio.Future[None], Callable[[], bool]] = {}

    async def wait(self, is_due: Callable[[], bool], until_ns: int | None = None) -> bool:
        """Wait for a change after which `is_due`; return False at the time `until_ns`. May return True early.

        Args:
            is_due: called with the monitor's lock held, at each change and not before.
            until_ns: None: wait without a limit.
        """
        changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[changed] = is_due
        try:
            if until_ns is None:
                await changed
                return True
            left_s = (until_ns - self._clock.now_ns()) / 1e9
            if left_s <= 0:
                return False
            sleeper = asyncio.ensure_future(self._clock.sleep(left_s))
            try:
                await asyncio.wait({sleeper, changed}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                sleeper.cancel()
            return True
        finally:
            del self._waiting[changed]

    def wake(self) -> None:
        """Take note of a change."""
        if not self._waiting:
            return
        with self._monitor.lock:
            for changed, is_due in self._waiting.items():
                if not changed.done() and is_due():
                    changed.set_result(None)

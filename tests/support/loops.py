"""Asynchronous tests as plain ones: a loop per test, and a guard against hanging."""

import asyncio
import functools

from forebay_server.service.event_loop import ServingLoop
from tests.support.guard import HANG_GUARD_S


def on_loop(test=None, *, guard_s=2 * HANG_GUARD_S):
    """Run an asynchronous test on a loop like the server's; `guard_s` is for tests that really compute.

    It is longer than that of a single wait, which says more: what did not come.
    """
    if test is None:
        return functools.partial(on_loop, guard_s=guard_s)

    @functools.wraps(test)
    def run(*arguments, **keywords):
        with asyncio.Runner(loop_factory=ServingLoop) as runner:
            runner.run(asyncio.wait_for(test(*arguments, **keywords), guard_s))

    return run


class LoopClock:
    """A clock for the client that only the test moves. Owner: the test's loop.

    `pass_sleep` waits until some task sleeps for just that long, and then lets exactly that time pass.
    """

    def __init__(self, start_ns=1_000_000_000):
        self._now_ns = start_ns
        self._sleepers = []  # (until_ns, seconds asked for, future)
        self._asleep = asyncio.Event()

    def now_ns(self):
        return self._now_ns

    def wait(self, condition, until_ns):
        raise AssertionError("nothing waits in a thread here")

    async def sleep(self, seconds):
        if seconds <= 0:
            return
        future = asyncio.get_running_loop().create_future()
        sleeper = (self._now_ns + round(seconds * 1e9), seconds, future)
        self._sleepers.append(sleeper)
        self._asleep.set()
        try:
            await future
        finally:
            self._sleepers.remove(sleeper)

    def advance(self, seconds):
        self._now_ns += round(seconds * 1e9)
        for until_ns, _, future in self._sleepers:
            if until_ns <= self._now_ns and not future.done():
                future.set_result(None)

    async def pass_sleep(self, seconds):
        """Wait for a task that sleeps for `seconds` and let the time pass."""
        await self.slept(seconds)
        self.advance(seconds)

    async def slept(self, seconds):
        """Wait for a task that sleeps for `seconds`."""
        async with asyncio.timeout(HANG_GUARD_S / 2):
            while not any(abs(asked - seconds) < 1e-6 for _, asked, future in self._sleepers if not future.done()):
                self._asleep.clear()
                await self._asleep.wait()

    @property
    def sleeping(self):
        """How long each sleeping task asked for."""
        return sorted(asked for _, asked, future in self._sleepers if not future.done())

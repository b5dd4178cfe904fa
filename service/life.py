"""The life of a server process: it serves until it is asked to stop, or until it cannot go on.

Thread: the event loop's, except `on_fatal` (any).
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from forebay_server.service.clock import Clock
from forebay_server.service.signals import StopRequest, StopRequests
from forebay_server.service.standard_error import LAST_WORDS_TIMEOUT_S, STANDARD_ERROR

log = structlog.get_logger(__name__)

EXIT_OK = 0
EXIT_FATAL = 70  # EX_SOFTWARE: a supervisor should start the process anew
FATAL_TIMEOUT_S = 5.0  # from a fatal error to the end of the process
T = TypeVar("T")


class Life:
    """See the module. Made on the event loop.

    Args:
        clock: source of monotonic nanoseconds.
        guard: called at the first fatal error, on the thread that met it: bounds the time that is left.

    Attributes:
        fatal: the first error after which the process cannot go on; None so far.
        is_serving: whether it has begun to serve.
        stopping: set once the process was asked to stop, or cannot go on.
        requests: requests to stop.
    """

    def __init__(self, clock: Clock, guard: Callable[[], None] = lambda: None) -> None:
        self._loop = asyncio.get_running_loop()
        self.guard = guard
        self.fatal: BaseException | None = None
        self.is_serving = False
        self.stopping = asyncio.Event()
        self.requests = StopRequests(clock)

    def stop(self, signal_number: int = signal.SIGTERM) -> None:
        """Handle a request to stop: drain, or, at a second request, end the process at once."""
        match self.requests.take():
            case StopRequest.DRAIN:
                self.stopping.set()
            case StopRequest.END_AT_ONCE:
                STANDARD_ERROR.close(LAST_WORDS_TIMEOUT_S)
                os._exit(128 + signal_number)
            case StopRequest.NOTHING_NEW:
                log.info("asked to stop again within a second: taken for the same request")

    def on_fatal(self, error: BaseException) -> None:
        """Record an error after which the process cannot go on, and stop. Thread: any."""
        if self.fatal is None:
            self.fatal = error
        self.guard()
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self.stopping.set)

    async def wait(self) -> None:
        """Return when the process was asked to stop or cannot go on."""
        await self.stopping.wait()

    async def unless_stopped(self, work: Awaitable[T]) -> "asyncio.Future[T]":
        """Return the future of some work when it is done, or when the process is asked to stop before that."""
        working = asyncio.ensure_future(work)
        stopping = asyncio.ensure_future(self.stopping.wait())
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        return working

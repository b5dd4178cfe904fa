"""Runs a process that serves until it is asked to stop: the event loop, the signals, the exit code.

Thread: main.
"""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import structlog

from forebay_server.service.event_loop import ServingLoop
from forebay_server.service.exit_guard import ExitGuard
from forebay_server.service.life import EXIT_FATAL, FATAL_TIMEOUT_S
from forebay_server.service.log import step_level
from forebay_server.service.ready import ReadyLine, ready_was_told
from forebay_server.service.signals import StopRequests, listen
from forebay_server.service.standard_error import LAST_WORDS_TIMEOUT_S, STANDARD_ERROR

log = structlog.get_logger(__name__)


class ServingProcess(Protocol):
    """All parts of a server, or those that are in this process. Thread: the loop's."""

    @property
    def requests(self) -> StopRequests:
        """Requests to stop."""
        ...

    @property
    def has_hung_loads(self) -> bool:
        """After `close`: whether a thread is inside a library, and may stay there for ever."""
        ...

    async def start(self) -> ReadyLine | None:
        """Get ready to serve; return None if a stop request came before that. `close_unstarted` cleans up an error."""
        ...

    def stop(self, signal_number: int) -> None:
        """Handle a request to stop."""
        ...

    async def wait(self) -> None:
        """Return when the process was asked to stop or cannot go on."""
        ...

    async def close(self) -> int:
        """Drain, close every part, and return the exit code."""
        ...

    async def close_unstarted(self) -> None:
        """Close the parts that a failed `start` had opened."""
        ...


Make = Callable[[Callable[[], None]], ServingProcess]
"""Makes the parts, given the guard to arm at a fatal error."""


async def _serve(make: Make, ready_file: Path | None) -> int:
    server = make(ExitGuard(EXIT_FATAL, FATAL_TIMEOUT_S).arm)
    listen(asyncio.get_running_loop(), server.stop, _step_log_level)
    try:
        ready = await server.start()
        if ready is not None:
            await ready_was_told(ready.to_json(), ready_file, server.wait())
    except BaseException:
        await server.close_unstarted()
        raise
    if ready is not None:
        await server.wait()
    log.info("stopping")
    code = await server.close()
    if code == EXIT_FATAL or server.has_hung_loads:
        # Here: `asyncio.run` would wait for calls that may hang inside an engine for ever.
        STANDARD_ERROR.close(LAST_WORDS_TIMEOUT_S)
        os._exit(code)
    server.requests.ignore_rest(asyncio.get_running_loop())
    return code


def _step_log_level(signal_number: int) -> None:
    """Log more from now on, or less: SIGUSR1, SIGUSR2."""
    log.warning("log level changed", least=step_level(-1 if signal_number == signal.SIGUSR1 else 1))


def serve_with(make: Make, ready_file: Path | None = None) -> int:
    """Run the parts of a process until it is asked to stop, and return the exit code. Thread: main."""
    with asyncio.Runner(loop_factory=ServingLoop) as runner:
        return runner.run(_serve(make, ready_file))

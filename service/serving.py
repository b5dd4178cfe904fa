"""Runs a server in this process until it is asked to stop: the event loop, the signals, the exit code.

Thread: main.
"""

import asyncio
import os
import signal

import structlog

from forebay_server.service.event_loop import ServingLoop
from forebay_server.service.exit_guard import ExitGuard
from forebay_server.service.log import step_level
from forebay_server.service.ready import ready_was_told
from forebay_server.service.server import EXIT_FATAL, FATAL_TIMEOUT_S, Server
from forebay_server.service.settings import ServeSettings
from forebay_server.service.signals import listen
from forebay_server.service.standard_error import LAST_WORDS_TIMEOUT_S, STANDARD_ERROR

log = structlog.get_logger(__name__)


async def _serve(settings: ServeSettings) -> int:
    server = Server(settings, guard=ExitGuard(EXIT_FATAL, FATAL_TIMEOUT_S).arm)
    listen(asyncio.get_running_loop(), server.stop, _step_log_level)
    try:
        ready = await server.start()
        if ready is not None:
            await ready_was_told(ready.to_json(), settings.ready_file, server.wait())
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


def serve(settings: ServeSettings) -> int:
    """Run a server until it is asked to stop and return the exit code. Thread: main."""
    with asyncio.Runner(loop_factory=ServingLoop) as runner:
        return runner.run(_serve(settings))

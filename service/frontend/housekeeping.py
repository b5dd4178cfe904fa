"""Regular work on open streams: clients that take nothing are cut, and each kind of stream adds its own.

Owner: the event loop's thread.
"""

import asyncio
from collections.abc import Set

import structlog

from forebay_server.service.clock import Clock
from forebay_server.service.frontend.stream_call import LOOK_INTERVAL_S, StreamCall
from forebay_server.service.settings import ServeSettings

log = structlog.get_logger(__name__)


class Housekeeping:
    """See the module.

    Args:
        calls: the streaming calls of all protocols that are open.
        clock: source of monotonic nanoseconds.
        settings: limits.
    """

    def __init__(self, calls: Set[StreamCall], clock: Clock, settings: ServeSettings) -> None:
        self._calls = calls
        self._clock = clock
        self._settings = settings

    async def run(self, interval_s: float = LOOK_INTERVAL_S) -> None:
        """Look at all streams again and again, until it is cancelled."""
        while True:
            await asyncio.sleep(interval_s)
            try:
                self._look(self._clock.now_ns())
            except Exception:
                log.exception("streams were not looked after")  # the next check may succeed

    def _look(self, now_ns: int) -> None:
        deadline_s = self._settings.write_deadline_s
        for call in tuple(self._calls):
            if call.outgoing.is_stuck(now_ns, deadline_s):
                call.give_up()
            else:
                call.on_look(now_ns)

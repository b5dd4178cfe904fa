"""Asks streams to go to other front-end processes, as `balance` decides. Owner: the event loop's thread."""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from forebay_server.service.clock import Clock
from forebay_server.service.group.balance import Balance

log = structlog.get_logger(__name__)

INTERVAL_S = 1.0


class Rebalancing:
    """See the module.

    Args:
        streams: returns those that can be asked, of each front-end process; None for one that does not listen.
        ask: has a front-end process ask so many of its streams to reconnect.
        clock: source of monotonic nanoseconds.
    """

    def __init__(
        self, streams: Callable[[], Sequence[int | None]], ask: Callable[[int, int], None], clock: Clock
    ) -> None:
        self._streams = streams
        self._ask = ask
        self._clock = clock
        self._balance = Balance()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        """End. Idempotent."""
        if self._task is not None:
            self._task.cancel()

    def look(self) -> None:
        """Decide once."""
        streams = self._streams()
        moves = self._balance.decide(self._clock.now_ns(), streams)
        if moves:
            log.info("streams are asked to go to other front-end processes", streams=list(streams))
        for move in moves:
            self._ask(*move)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL_S)
            try:
                self.look()
            except Exception:
                log.exception("streams were not rebalanced")  # the next look may succeed

"""Asks streams to go to other front-end processes, as `balance` decides. Owner: the event loop's thread."""

from collections.abc import Callable, Sequence
from typing import ClassVar

import structlog

from forebay_server.service.clock import Clock
from forebay_server.service.every_second import EverySecond
from forebay_server.service.group.balance import Balance

log = structlog.get_logger(__name__)


class Rebalancing(EverySecond):
    """See the module.

    Args:
        streams: returns those that can be asked, of each front-end process; None for one that does not listen.
        leaving: returns how many of all streams were asked and have not left yet.
        ask: has a front-end process ask so many of its streams to reconnect.
        clock: source of monotonic nanoseconds.
    """

    complaint: ClassVar[str] = "streams were not rebalanced"

    def __init__(
        self,
        streams: Callable[[], Sequence[int | None]],
        leaving: Callable[[], int],
        ask: Callable[[int, int], None],
        clock: Clock,
    ) -> None:
        self._streams = streams
        self._leaving = leaving
        self._ask = ask
        self._clock = clock
        self._balance = Balance()

    def look(self) -> None:
        """Decide once."""
        streams = self._streams()
        moves = self._balance.decide(self._clock.now_ns(), streams, self._leaving())
        if moves:
            log.info("streams are asked to go to other front-end processes", streams=list(streams))
        for move in moves:
            self._ask(*move)

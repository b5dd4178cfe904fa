"""Closes the shared memory of clients that have gone, twice a second.

Thread: the event loop's.
"""

import asyncio
from collections.abc import Callable

import structlog

from forebay_server.service.frontend.memory.regions import ClientRegions

log = structlog.get_logger(__name__)

ORPHANS_INTERVAL_S = 0.5


class RegionWatch:
    """See the module.

    Args:
        regions: of clients.
        on_fatal: receives an error after which the process cannot go on.
    """

    def __init__(self, regions: ClientRegions, on_fatal: Callable[[BaseException], None]) -> None:
        self._regions = regions
        self._on_fatal = on_fatal
        self._watching: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._watching = asyncio.create_task(self._watch())

    def stop(self) -> None:
        """Do nothing more. Idempotent."""
        if self._watching is not None:
            self._watching.cancel()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(ORPHANS_INTERVAL_S)
            try:
                self._regions.close_orphans()
            except Exception as error:
                log.exception("regions without a client were not closed")
                self._on_fatal(error)  # there is no half-dead service

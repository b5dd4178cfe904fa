"""Regular work of a server's event loop: it looks after shared memory, and at the model repository.

Thread: the event loop's.
"""

import asyncio
from collections.abc import Callable

import structlog

from forebay_server.service.frontend.memory.regions import ClientRegions
from forebay_server.service.models.lifecycle import ModelLifecycle

log = structlog.get_logger(__name__)

ORPHANS_INTERVAL_S = 0.5


class Chores:
    """See the module.

    Args:
        regions: of clients; those whose clients have gone are closed.
        lifecycle: looks at the model repository, on a thread.
        poll_s: how often it does; None: never.
        on_fatal: called with an error after which the process cannot go on.
    """

    def __init__(
        self,
        regions: ClientRegions,
        lifecycle: ModelLifecycle,
        poll_s: float | None,
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self._regions = regions
        self._lifecycle = lifecycle
        self._poll_s = poll_s
        self._on_fatal = on_fatal
        self._watching: asyncio.Task[None] | None = None
        self._polling: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._watching = asyncio.create_task(self._watch_regions())
        if self._poll_s is not None:
            self._polling = asyncio.create_task(self._poll(self._poll_s))

    def stop_polling(self) -> None:
        """Look at the repository no more. Idempotent."""
        if self._polling is not None:
            self._polling.cancel()

    def stop(self) -> None:
        """Do nothing more. Idempotent."""
        self.stop_polling()
        if self._watching is not None:
            self._watching.cancel()

    async def _watch_regions(self) -> None:
        while True:
            await asyncio.sleep(ORPHANS_INTERVAL_S)
            try:
                self._regions.close_orphans()
            except Exception as error:
                log.exception("regions without a client were not closed")
                self._on_fatal(error)  # there is no half-dead service

    async def _poll(self, interval_s: float) -> None:
        while True:
            await asyncio.sleep(interval_s)
            try:
                await asyncio.to_thread(self._lifecycle.look)
            except Exception:
                log.exception("the model repository was not looked at")  # the models serve on

"""The observed side of a server process: the records of the data path, and the admin port that shows them.

Thread: the event loop's.
"""

import asyncio
from collections.abc import Callable, Iterable

import structlog

from forebay_server.service.clock import Clock
from forebay_server.service.frontend.binding import AddressError
from forebay_server.service.frontend.frames.preview import preview_jpeg
from forebay_server.service.journal.events import Journal
from forebay_server.service.journal.statistics import VersionReport
from forebay_server.service.observe.admin_thread import AdminThread
from forebay_server.service.observe.gauges import Gauges
from forebay_server.service.observe.gpus import open_gpus
from forebay_server.service.observe.site import Site
from forebay_server.service.observe.tracing import open_tracing
from forebay_server.service.settings import ServeSettings, is_loopback

log = structlog.get_logger(__name__)

CLOSE_TIMEOUT_S = 10.0
LAST_LOOK_S = 1.0  # after a fatal error, for the observer's thread


def journal_of(settings: ServeSettings) -> Journal | None:
    """Return a journal; None if there would be no reader."""
    return Journal() if settings.admin_address or settings.trace_every_frames else None


class AdminSide:
    """See the module.

    Args:
        settings: of the process.
        clock: source of monotonic nanoseconds.
        journal: the data path's records; None: nothing is observed.
        gauges: current numbers of the parts.
        reports: counts of every version.
        is_ready: whether the server takes streams.

    Attributes:
        address: of the admin port, with a real port number; None without one.
        site: its answers.
        thread: the observer's.
    """

    def __init__(
        self,
        settings: ServeSettings,
        clock: Clock,
        journal: Journal | None,
        gauges: Gauges,
        reports: Callable[[], Iterable[VersionReport]],
        is_ready: Callable[[], bool],
    ) -> None:
        self.address: str | None = None
        self._settings = settings
        self._is_observed = journal is not None
        self.site = Site(
            journal or Journal(),
            gauges,
            reports,
            is_ready,
            clock,
            open_tracing(settings.trace_every_frames, clock),
            preview_jpeg if settings.allow_pictures else None,
            open_gpus() if settings.admin_address else None,
        )
        self.thread = AdminThread(self.site.pages(), self.site.tick)

    async def start(self) -> None:
        """Listen, if the settings say so, and observe. Raises AddressError."""
        if not self._is_observed:
            return
        host, _, port = self._settings.admin_address.rpartition(":")
        try:
            self.address = await self.thread.start(host, int(port or 0)) or None
        except OSError:
            words = f"cannot listen on {self._settings.admin_address}: is it in use? give another --admin-address"
            raise AddressError(words) from None
        if self.address is None:
            return
        log.info("admin port", address=self.address)
        if not is_loopback(host):
            log.warning("other machines reach the admin port: it has no TLS and asks for no password", host=host)

    async def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Look a last time, and stop listening. Idempotent."""
        if await self.thread.close(timeout_s):
            await asyncio.to_thread(self.site.close)  # the observer's thread has ended

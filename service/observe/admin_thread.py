"""The observer's thread: the admin port, if there is one, and one tick a second, on a separate event loop.

This thread cannot block the event loop of the data path, except that Python runs one thread at a time: a computing
thread is interrupted after 0.5 ms (`service.tuning`), and no single call of an observer takes much longer.
"""

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Mapping

import structlog

from forebay_server.service.observe.admin import AdminServer, Handler

log = structlog.get_logger(__name__)

TICK_S = 1.0  # a tick costs about 0.1 ms however few frames there are


class AdminThread:
    """See the module. The data path's event loop calls `start` and `close`, which do not block it.

    Args:
        pages: answers to GET by path; called on this thread.
        tick: called on this thread, once a second.
    """

    def __init__(self, pages: Mapping[str, Handler], tick: Callable[[], None]) -> None:
        self._server = AdminServer(pages)
        self._tick = tick
        self._has_failed = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    async def start(self, host: str, port: int) -> str:
        """Listen, unless `host` is empty, and return host:port with the real port. Raises OSError."""
        started: concurrent.futures.Future[str] = concurrent.futures.Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._run(host, port, started)), name="observer", daemon=True
        )
        self._thread.start()
        return await asyncio.wrap_future(started)

    async def close(self, timeout_s: float) -> bool:
        """Stop listening, drop every connection and join; return whether the thread has ended. Idempotent.

        The thread may not end: it asks drivers for a device's memory, and a driver may hang.
        """
        thread = self._thread
        if thread is None:
            return True
        if self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._stop.set)
        await asyncio.to_thread(thread.join, timeout_s)
        if thread.is_alive():
            log.error("the observer hangs; records that it has not processed are lost", after_s=timeout_s)
        return not thread.is_alive()

    async def _run(self, host: str, port: int, started: "concurrent.futures.Future[str]") -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            address = await self._server.start(host, port) if host else ""
        except BaseException as error:  # noqa: BLE001 - the waiting thread raises it
            started.set_exception(error)
            return
        started.set_result(address)
        try:
            while not self._stop.is_set():
                self._observe()
                try:
                    async with asyncio.timeout(TICK_S):
                        await self._stop.wait()
                except TimeoutError:
                    continue
        finally:
            await self._server.close()

    def _observe(self) -> None:
        try:
            self._tick()
        except Exception:
            if not self._has_failed:  # log once: a line every second would fill the disk
                log.exception("observing failed; metrics and the page may be wrong from now on")
            self._has_failed = True

"""The composition root: builds every part of a server process, runs it, and takes it down in order.

Life: tune -> log -> load models (a thread, so that the loop stays free) -> listen -> health SERVING -> ready line ->
serve -> SIGTERM -> drain -> models closed left to right -> exit 0. A lost device, a hang or a bug in a pipeline thread
ends the process with code 70, after `FATAL_TIMEOUT_S` at most, even if threads hang (`service.exit_guard`).
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog

from forebay_server.engines.errors import EngineError
from forebay_server.service.assembly import assemble_front_end, rehearsal_of
from forebay_server.service.chores import Chores
from forebay_server.service.clock import Clock, MonotonicClock
from forebay_server.service.frontend.frames.preview import preview_jpeg
from forebay_server.service.frontend.loop_sink import LoopSink
from forebay_server.service.frontend.server import AddressError, within_memory
from forebay_server.service.journal.events import Journal
from forebay_server.service.models.attempts import Attempts
from forebay_server.service.models.lifecycle import ModelLifecycle
from forebay_server.service.models.loader import ModelLoader
from forebay_server.service.models.memory import MemoryAccount, limited_bytes
from forebay_server.service.models.opening import VersionContext
from forebay_server.service.models.placement import OpenDevice, open_device_of_kind
from forebay_server.service.models.registry import ModelRegistry
from forebay_server.service.models.repository import RepositoryError
from forebay_server.service.models.version import ModelVersion
from forebay_server.service.observe.admin_thread import AdminThread
from forebay_server.service.observe.gauges import Gauges
from forebay_server.service.observe.site import Site
from forebay_server.service.observe.tracing import open_tracing
from forebay_server.service.pipeline.execute import BeforeExecution
from forebay_server.service.pipeline.permits import Permits
from forebay_server.service.ready import Ready
from forebay_server.service.settings import ServeSettings, default_cache_folder, is_loopback
from forebay_server.service.signals import StopRequest, StopRequests
from forebay_server.service.standard_error import LAST_WORDS_TIMEOUT_S, STANDARD_ERROR
from forebay_server.service.tuning import give_free_memory_back
from forebay_server.service.watchdog import Watchdog, WatchdogThread
from forebay_server.service.worker_pool import WorkerPool, default_workers

log = structlog.get_logger(__name__)

EXIT_OK = 0
EXIT_FATAL = 70  # EX_SOFTWARE: a supervisor should start the process anew
WATCH_INTERVAL_NS = 500_000_000  # how late a hang may be noticed
CLOSE_TIMEOUT_S = 10.0  # for each thread at shutdown; an engine that hangs longer is given up
GIVEN_UP_LOAD_S = 2.0  # for a load that was given up to end in order, after everything has been answered
FATAL_TIMEOUT_S = 5.0  # from a fatal error to the end of the process
LACKING = "the server is ready once these models serve, or with --strict-readiness false"
LAST_LOOK_S = 1.0  # of these, for the observer's thread


class Server:
    """One server process. Thread: the event loop's, except `on_fatal` (any).

    Args:
        settings: all of them.
        clock: source of monotonic nanoseconds.
        open_device: opens the devices of the models.
        before_execution: for tests, see `service.pipeline.execute`.
        guard: called at the first fatal error, on the thread that met it: bounds the time of `close`.
    """

    def __init__(
        self,
        settings: ServeSettings,
        clock: Clock | None = None,
        open_device: OpenDevice = open_device_of_kind,
        guard: Callable[[], None] = lambda: None,
        before_execution: BeforeExecution | None = None,
    ) -> None:
        self.settings = settings = within_memory(settings, limited_bytes())
        self.clock: Clock = clock or MonotonicClock()
        self._loop = asyncio.get_running_loop()
        self._fatal: BaseException | None = None
        self._guard = guard
        self._stop = asyncio.Event()
        self.requests = StopRequests(self.clock)
        self._is_serving = False
        self.has_hung_loads = False  # after `close`: a thread is inside a library, and may stay there for ever
        sink = LoopSink(self._loop)
        self.journal = Journal() if settings.admin_address or settings.trace_every_frames else None  # None: no reader
        self.pool = WorkerPool(settings.worker_threads or default_workers(), self.on_fatal)
        self.permits = Permits(settings.permits, self.clock)
        self.registry = ModelRegistry(
            settings.model_repository,
            VersionContext(
                self.clock,
                self.pool,
                sink,
                self.permits,
                self.on_fatal,
                {"onnxruntime": {"intra_op_threads": str(settings.intra_op_threads)}},
                open_device,
                settings.cache_folder or default_cache_folder(os.environ),
                cpu_fallback=settings.cpu_fallback,
                memory=MemoryAccount(settings.model_memory_bytes),
                journal=self.journal,
                step_when_idle=sink.step_when_idle,
                before_buffers=self._before_buffers,
                message_bytes=settings.max_message_bytes,
                before_execution=before_execution,
            ),
        )
        self._loader = ModelLoader(self.registry, rehearsal_of(settings, self.registry.context, open_device))
        self.lifecycle = ModelLifecycle(
            self.registry,
            self._loader,
            Attempts(settings.load_timeout_s, self.clock),
            settings.model_control_mode,
            settings.load_model,
            self._on_model_changed,
        )
        self.registry.on_retired = self._on_retired
        watchdog = Watchdog(self.registry.running, self.clock, self.on_fatal)
        self._watchdog = WatchdogThread(watchdog.look, WATCH_INTERVAL_NS, self.clock, self.on_fatal)
        front_end = partial(assemble_front_end, settings, self.clock, self.registry, self.lifecycle)
        parts = front_end(self.pool, self.permits, sink, self.journal, lambda: self._is_ready)
        self.frames, self.inference, self.regions = parts.frames, parts.inference, parts.regions
        self.receptions, self.front_end = parts.receptions, parts.front_end
        poll_s = settings.repository_poll_s if self.lifecycle.mode == "poll" else None
        self._chores = Chores(self.regions, self.lifecycle, poll_s, self.on_fatal)
        reception = self.front_end.reception_numbers
        gauges = Gauges(self.registry.all, self.pool, self.permits, lambda: self._is_ready, reception)
        self._site = Site(
            self.journal or Journal(),
            gauges,
            self.registry.reports,
            lambda: self._is_ready,
            self.clock,
            open_tracing(settings.trace_every_frames, self.clock),
            preview_jpeg if settings.allow_pictures else None,
        )
        self.admin = AdminThread(self._site.pages(), self._site.tick)
        self.admin_address: str | None = None

    @property
    def _is_ready(self) -> bool:
        return self._is_serving and not self._stop.is_set() and not self._is_lacking()

    def _is_lacking(self) -> bool:
        return self.settings.strict_readiness and bool(self.lifecycle.lacking())

    def _before_buffers(self) -> None:
        if not self._is_serving:  # all threads wait for it: 5 ms for every 100 MB kept
            give_free_memory_back()

    async def start(self) -> Ready | None:
        """Load the models and listen; return None if a stop request came before the server was ready.

        Raises RepositoryError, EngineError or AddressError; `close` then cleans up.
        """
        await self._start_admin()
        if not await self._load_models():
            return None
        serving = self.registry.versions()
        for name in (*self.lifecycle.lacking(), *serving):
            self.front_end.health.set(name, is_serving=name in serving)
        self.front_end.health.set("", is_serving=not self._is_lacking())
        if self._is_lacking():
            log.warning("not ready", models=self.lifecycle.lacking(), detail=LACKING)
        addresses = await self.front_end.start()
        self._is_serving = True
        self._watchdog.start()
        self._chores.start()
        return Ready(
            address=addresses[0],
            uds=None if self.settings.uds is None else str(self.settings.uds),
            admin_address=self.admin_address,
            pid=os.getpid(),
            models=self.registry.versions(),
        )

    async def _load_models(self) -> bool:
        """Load the models to serve from the start; return False if a stop request came meanwhile."""
        loading = self._loop.run_in_executor(
            None, partial(self.lifecycle.start, exit_on_error=self.settings.exit_on_error)
        )
        stopping = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait(set[asyncio.Future[Any]]((loading, stopping)), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not self._stop.is_set():
            await loading
            return True
        self.lifecycle.stop()
        with contextlib.suppress(RepositoryError, EngineError):  # most likely the load was given up
            await loading
        return False

    async def _start_admin(self) -> None:
        if self.journal is None:
            return
        host, _, port = self.settings.admin_address.rpartition(":")
        try:
            self.admin_address = await self.admin.start(host, int(port or 0)) or None
        except OSError:
            words = f"cannot listen on {self.settings.admin_address}: is it in use? give another --admin-address"
            raise AddressError(words) from None
        if self.admin_address is None:
            return
        log.info("admin port", address=self.admin_address)
        if not is_loopback(host):
            log.warning("other machines reach the admin port: it has no TLS and asks for no password", host=host)

    def stop(self, signal_number: int = signal.SIGTERM) -> None:
        """Handle a request to stop: drain, or, at a second request, end the process at once. Thread: the loop's."""
        match self.requests.take():
            case StopRequest.DRAIN:
                self._stop.set()
            case StopRequest.END_AT_ONCE:
                STANDARD_ERROR.close(LAST_WORDS_TIMEOUT_S)
                os._exit(128 + signal_number)
            case StopRequest.NOTHING_NEW:
                log.info("asked to stop again within a second: taken for the same request")

    def on_fatal(self, error: BaseException) -> None:
        """Record an error after which the process cannot go on, and stop. Thread: any."""
        if self._fatal is None:
            self._fatal = error
        self._guard()
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._stop.set)

    async def wait(self) -> None:
        """Return when the server was asked to stop or cannot go on."""
        await self._stop.wait()

    def _on_model_changed(self, name: str, is_serving: bool) -> None:  # noqa: FBT001 - called with both, by position
        """Publish a model's health, and the server's, which may depend on it. Thread: any."""

        def publish() -> None:
            self.front_end.health.set(name, is_serving=is_serving)
            if self._is_serving:
                self.front_end.health.set("", is_serving=not self._is_lacking())

        self._loop.call_soon_threadsafe(publish)

    def _on_retired(self, version: ModelVersion) -> None:
        """Ask the streams of a version that is being unloaded to reconnect. Thread: any."""
        grace_ms = int(self.settings.drain_grace_s * 1000)
        self._loop.call_soon_threadsafe(lambda: self.frames.send_away(version, grace_ms))

    async def close(self) -> int:
        """Drain, close every part, and return the exit code; after a fatal error only let clients and traces know."""
        self._chores.stop_polling()
        self.lifecycle.stop()
        if self._fatal is None and not self._is_serving:
            await self.close_unstarted()
            return EXIT_OK
        try:
            if self._fatal is None and await self._close_in_order() and self._fatal is None:
                return EXIT_OK
            log.error("the process cannot go on", error=str(self._fatal) if self._fatal else "an engine hangs")
            self._guard()
            try:
                await self.front_end.abort()
                await self._close_admin(LAST_LOOK_S)
            except Exception:  # any error: the exit code asks for a restart
                log.exception("the end was not in order")
            return EXIT_FATAL
        finally:
            self._watchdog.stop()
            self._chores.stop()

    async def _close_in_order(self) -> bool:
        """Answer every request, then close every part; return whether all threads of the models have ended."""
        await self.front_end.drain()
        await self._close_admin(CLOSE_TIMEOUT_S)
        self.regions.close()
        return self._fatal is None and await self._close_models()

    async def _close_admin(self, timeout_s: float) -> None:
        if await self.admin.close(timeout_s):
            await asyncio.to_thread(self._site.close)  # the observer's thread has ended

    async def close_unstarted(self) -> None:
        """Close the parts that a failed `start` had opened."""
        await self.front_end.abort()
        await self.admin.close(CLOSE_TIMEOUT_S)
        await self._close_models()

    async def _close_models(self) -> bool:
        """Close every model and its threads; return whether all ended."""
        self.lifecycle.stop()
        self.has_hung_loads = not await asyncio.to_thread(self._loader.wait_ended, GIVEN_UP_LOAD_S, self.clock)
        if self.has_hung_loads:
            log.warning("a model is still loading; the process ends all the same")
        if not await asyncio.to_thread(self.registry.close, CLOSE_TIMEOUT_S):
            return False
        await asyncio.to_thread(self.pool.close)
        return True

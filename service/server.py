"""The composition root: builds every part of a server process, runs it, and takes it down in order.

Life: tune -> log -> check port and certificates -> load models (a thread, so that the loop stays free) -> listen ->
health SERVING -> ready line -> serve -> SIGTERM -> drain -> models closed left to right -> exit 0. A lost device, a
hang or a bug in a pipeline thread ends the process with code 70, after `FATAL_TIMEOUT_S` at most, even if threads
hang (`service.exit_guard`).
"""

import asyncio
import os
import signal
from collections.abc import Callable

import structlog

from forebay_server.service.admin_side import CLOSE_TIMEOUT_S, LAST_LOOK_S, AdminSide, journal_of
from forebay_server.service.assembly import assemble_front_end
from forebay_server.service.clock import Clock, MonotonicClock
from forebay_server.service.control_rpcs import control_rpcs, own_streams
from forebay_server.service.frontend.loop_sink import LoopSink
from forebay_server.service.frontend.place import check_port, check_unix_socket
from forebay_server.service.frontend.server import within_memory
from forebay_server.service.frontend.tls import check_certificates
from forebay_server.service.journal.streams import Why
from forebay_server.service.life import EXIT_FATAL, EXIT_OK, Life
from forebay_server.service.load.meter import Load
from forebay_server.service.load.moving import Moving
from forebay_server.service.model_side import ModelSide, version_context
from forebay_server.service.models.memory import limited_bytes
from forebay_server.service.models.placement import OpenDevice, open_device_of_kind
from forebay_server.service.models.version import ModelVersion
from forebay_server.service.observe.gauges import Gauges
from forebay_server.service.pipeline.execute import BeforeExecution
from forebay_server.service.pipeline.permits import Permits
from forebay_server.service.ready import Ready
from forebay_server.service.region_watch import RegionWatch
from forebay_server.service.serving import serve_with
from forebay_server.service.settings import ServeSettings
from forebay_server.service.worker_pool import WorkerPool, default_workers

log = structlog.get_logger(__name__)


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
        self.life = life = Life(self.clock, guard)
        self.requests, self.on_fatal, self.wait = life.requests, life.on_fatal, life.wait
        sink = LoopSink(self._loop)
        self.journal = journal_of(settings)
        self.pool = WorkerPool(settings.worker_threads or default_workers(), self.on_fatal)
        self.permits = Permits(settings.permits, self.clock)
        context = version_context(
            settings,
            self.clock,
            life,
            self.pool,
            sink,
            self.permits,
            open_device,
            journal=self.journal,
            step_when_idle=sink.step_when_idle,
            before_execution=before_execution,
        )
        self.models = models = ModelSide(settings, context, life, self._on_model_changed)
        self.registry, self.lifecycle = models.registry, models.lifecycle
        self.registry.on_retired = self._on_retired
        control = control_rpcs(settings, self.registry, self.lifecycle, lambda: self.is_ready)
        parts = assemble_front_end(
            settings,
            self.clock,
            self.registry,
            self.pool,
            self.permits,
            sink,
            self.journal,
            control,
            own_streams(settings),
        )
        self.frames, self.inference, self.regions = parts.frames, parts.inference, parts.regions
        self.receptions, self.front_end = parts.receptions, parts.front_end
        self._region_watch = RegionWatch(self.regions, self.on_fatal)
        reception = self.front_end.reception_numbers
        self.moving = Moving(
            self.registry.all,
            self.frames.totals,
            self.front_end.stream_numbers,
            lambda wish: self.frames.move(wish, int(settings.drain_grace_s * 1000), Why.OVERLOAD),
            self._publish_load,
            self.clock,
            is_on=settings.move_streams,
        )
        gauges = Gauges(
            self.registry.all,
            self.pool,
            self.permits,
            lambda: self.is_ready,
            reception,
            streams=self.front_end.stream_numbers,
            load=lambda: self.moving.load,
        )
        self.admin = AdminSide(settings, self.clock, self.journal, gauges, self.registry.reports, lambda: self.is_ready)

    @property
    def is_ready(self) -> bool:
        """Whether the server takes requests for every model that should serve."""
        return self.life.is_serving and not self.life.stopping.is_set() and not self.models.is_lacking()

    @property
    def admin_address(self) -> str | None:
        """Of the admin port, if there is one."""
        return self.admin.address

    @property
    def has_hung_loads(self) -> bool:
        """After `close`: whether a thread is inside a library, and may stay there for ever."""
        return self.models.has_hung_loads

    async def start(self) -> Ready | None:
        """Load the models and listen; return None if a stop request came before the server was ready.

        Raises RepositoryError, EngineError or AddressError; `close` then cleans up.
        """
        await self.admin.start()
        if not await self.models.load():
            return None
        serving = self.registry.versions()
        for name in (*self.lifecycle.lacking(), *serving):
            self.front_end.health.set(name, is_serving=name in serving)
        self.front_end.health.set("", is_serving=not self.models.is_lacking())
        addresses = await self.front_end.start()
        self.life.is_serving = True
        self.models.serve()
        self._region_watch.start()
        self.moving.start()
        return Ready(
            address=addresses[0],
            uds=None if self.settings.uds is None else str(self.settings.uds),
            admin_address=self.admin_address,
            pid=os.getpid(),
            models=self.registry.versions(),
        )

    def stop(self, signal_number: int = signal.SIGTERM) -> None:
        """Handle a request to stop: drain, or, at a second request, end the process at once. Thread: the loop's."""
        self.life.stop(signal_number)

    def _publish_load(self, load: Load) -> None:
        self.frames.door.has_room = load.has_room
        self.front_end.load_reports.publish(load)

    def _on_model_changed(self, name: str, is_serving: bool) -> None:  # noqa: FBT001 - called with both, by position
        """Publish a model's health, and the server's, which may depend on it. Thread: any."""

        def publish() -> None:
            self.front_end.health.set(name, is_serving=is_serving)
            if self.life.is_serving:
                self.front_end.health.set("", is_serving=not self.models.is_lacking())

        self._loop.call_soon_threadsafe(publish)

    def _on_retired(self, version: ModelVersion) -> None:
        """Ask the streams of a version that is being unloaded to reconnect. Thread: any."""
        grace_ms = int(self.settings.drain_grace_s * 1000)
        self._loop.call_soon_threadsafe(lambda: self.frames.send_away(version, grace_ms))

    async def close(self) -> int:
        """Drain, close every part, and return the exit code; after a fatal error only let clients and traces know."""
        life = self.life
        self.models.stop()
        self.moving.stop()
        if life.fatal is None and not life.is_serving:
            await self.close_unstarted()
            return EXIT_OK
        try:
            if life.fatal is None and await self._close_in_order() and life.fatal is None:
                return EXIT_OK
            log.error("the process cannot go on", error=str(life.fatal) if life.fatal else "an engine hangs")
            life.guard()
            try:
                await self.front_end.abort()
                await self.admin.close(LAST_LOOK_S)
            except Exception:  # any error: the exit code asks for a restart
                log.exception("the end was not in order")
            return EXIT_FATAL
        finally:
            self.models.watchdog.stop()
            self._region_watch.stop()

    async def _close_in_order(self) -> bool:
        """Answer every request, then close every part; return whether all threads of the models have ended."""
        await self.front_end.drain()
        await self.admin.close()
        self.regions.close()
        return self.life.fatal is None and await self._close_models()

    async def close_unstarted(self) -> None:
        """Close the parts that a failed `start` had opened."""
        await self.front_end.abort()
        await self.admin.thread.close(CLOSE_TIMEOUT_S)
        await self._close_models()

    async def _close_models(self) -> bool:
        """Close every model and its threads; return whether all ended."""
        if not await self.models.close():
            return False
        await asyncio.to_thread(self.pool.close)
        return True


def serve(settings: ServeSettings) -> int:
    """Run a server until it is asked to stop and return the exit code. Thread: main.

    Raises AddressError or CertificateError before models take their time to load, and all errors of `Server.start`.
    """
    check_certificates(settings)
    check_port(settings)
    check_unix_socket(settings.uds)
    return serve_with(lambda guard: Server(settings, guard=guard), settings.ready_file)

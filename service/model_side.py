"""The models of a server process: they are loaded, watched and closed here, wherever their requests come from.

Thread: the event loop's.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable
from functools import partial

import structlog

from forebay_server.engines.errors import EngineError
from forebay_server.service.batching.former import StepWhenIdle
from forebay_server.service.clock import Clock
from forebay_server.service.frontend.frames.decode.host_pictures import CpuPictures
from forebay_server.service.journal.events import Journal
from forebay_server.service.life import Life
from forebay_server.service.models.attempts import Attempts
from forebay_server.service.models.instances import WHOLE, Part
from forebay_server.service.models.lifecycle import ModelLifecycle
from forebay_server.service.models.loader import ModelLoader
from forebay_server.service.models.memory import MemoryAccount
from forebay_server.service.models.placement import OpenDevice, open_device_of_kind
from forebay_server.service.models.registry import ModelRegistry
from forebay_server.service.models.rehearsal import Rehearsal, RehearsalSettings
from forebay_server.service.models.repository import RepositoryError
from forebay_server.service.models.shared_memory import OpenMemory
from forebay_server.service.models.version_context import VersionContext
from forebay_server.service.pipeline.execute import BeforeExecution
from forebay_server.service.pipeline.permits import Permits
from forebay_server.service.request import CompletionSink
from forebay_server.service.settings import ServeSettings, default_cache_folder
from forebay_server.service.tuning import give_free_memory_back
from forebay_server.service.watchdog import Watchdog, WatchdogThread
from forebay_server.service.worker_pool import WorkerPool

log = structlog.get_logger(__name__)

WATCH_INTERVAL_NS = 500_000_000  # how late a hang may be noticed
CLOSE_TIMEOUT_S = 10.0  # for each thread at shutdown; an engine that hangs longer is given up
GIVEN_UP_LOAD_S = 2.0  # for a load that was given up to end in order, after everything has been answered
LACKING = "the server is ready once these models serve, or with --strict-readiness false"


class ModelSide:
    """See the module.

    Args:
        settings: of the process.
        context: shared by all versions.
        life: of the process.
        on_changed: receives a model's name and whether it serves now. Thread: any.

    Attributes:
        registry: the versions that serve.
        lifecycle: loads and unloads models.
        loader: does the loading.
        watchdog: looks for engines that hang.
        has_hung_loads: after `close`: a thread is inside a library, and may stay there for ever.
    """

    def __init__(
        self,
        settings: ServeSettings,
        context: VersionContext,
        life: Life,
        on_changed: Callable[[str, bool], None],
    ) -> None:
        self.has_hung_loads = False
        self._settings = settings
        self._life = life
        self._clock = context.clock
        self.registry = ModelRegistry(settings.model_repository, context)
        self.loader = ModelLoader(self.registry, rehearsal_of(settings, context))
        self.lifecycle = ModelLifecycle(
            self.registry,
            self.loader,
            Attempts(settings.load_timeout_s, context.clock),
            settings.model_control_mode,
            settings.load_model,
            on_changed,
        )
        watchdog = Watchdog(self.registry.running, context.clock, life.on_fatal)
        self.watchdog = WatchdogThread(watchdog.look, WATCH_INTERVAL_NS, context.clock, life.on_fatal)
        self._polling: asyncio.Task[None] | None = None

    def is_lacking(self) -> bool:
        """Whether the server is not ready because of a model that should serve and does not."""
        return self._settings.strict_readiness and bool(self.lifecycle.lacking())

    def lacking(self) -> list[str]:
        """Return the models that should serve from the start and do not. Thread: any."""
        return self.lifecycle.lacking()

    async def load(self) -> bool:
        """Load the models to serve from the start; return False if a stop request came meanwhile.

        Raises RepositoryError or EngineError.
        """
        start = partial(self.lifecycle.start, exit_on_error=self._settings.exit_on_error)
        loading = await self._life.unless_stopped(asyncio.get_running_loop().run_in_executor(None, start))
        if not self._life.stopping.is_set():
            await loading
            if self.is_lacking():
                log.warning("not ready", models=self.lifecycle.lacking(), detail=LACKING)
            return True
        self.lifecycle.stop()
        with contextlib.suppress(RepositoryError, EngineError):  # most likely the load was given up
            await loading
        return False

    def serve(self) -> None:
        """Begin to look for hanging engines and, if the settings say so, at the repository."""
        self.watchdog.start()
        if self.lifecycle.mode == "poll":
            self._polling = asyncio.create_task(self._poll(self._settings.repository_poll_s))

    async def _poll(self, interval_s: float) -> None:
        while True:
            await asyncio.sleep(interval_s)
            try:
                await asyncio.to_thread(self.lifecycle.look)
            except Exception:
                log.exception("the model repository was not looked at")  # the serving models are as they were

    def stop(self) -> None:
        """Begin no more loads, and give up those under way. Idempotent."""
        if self._polling is not None:
            self._polling.cancel()
        self.lifecycle.stop()

    async def close(self) -> bool:
        """Close every model and its threads; return whether all ended."""
        self.lifecycle.stop()
        self.has_hung_loads = not await asyncio.to_thread(self.loader.wait_ended, GIVEN_UP_LOAD_S, self._clock)
        if self.has_hung_loads:
            log.warning("a model is still loading; the process ends all the same")
        return await asyncio.to_thread(self.registry.close, CLOSE_TIMEOUT_S)


def rehearsal_of(settings: ServeSettings, context: VersionContext) -> Rehearsal | None:
    """Return what tries loads in a process of its own; None where that is off, or devices cannot be had there."""
    if not settings.rehearse_loads or context.open_device is not open_device_of_kind:
        return None
    of_process = RehearsalSettings(
        context.engine_options, settings.permits, context.cache_folder, settings.cpu_fallback, context.part
    )
    return Rehearsal(of_process, context.memory, os.environ)


def version_context(
    settings: ServeSettings,
    clock: Clock,
    life: Life,
    pool: WorkerPool,
    sink: CompletionSink,
    permits: Permits,
    open_device: OpenDevice,
    *,
    journal: Journal | None,
    step_when_idle: StepWhenIdle | None = None,
    before_execution: BeforeExecution | None = None,
    open_memory: OpenMemory | None = None,
    part: Part = WHOLE,
) -> VersionContext:
    """Return the parts that all versions of a process share.

    Args:
        settings: of the process.
        clock: source of monotonic nanoseconds.
        life: of the process.
        pool: makes typed results.
        sink: takes completions.
        permits: server-wide.
        open_device: opens devices.
        journal: receives one record per batch; None: nothing is observed.
        step_when_idle: see `VersionContext`.
        before_execution: for tests, see `service.pipeline.execute`.
        open_memory: see `VersionContext`.
        part: see `VersionContext`.
    """

    def before_buffers() -> None:
        if not life.is_serving:  # all threads wait for it: 5 ms for every 100 MB kept
            give_free_memory_back()

    return VersionContext(
        clock,
        pool,
        sink,
        permits,
        life.on_fatal,
        {"onnxruntime": {"intra_op_threads": str(settings.intra_op_threads)}},
        open_device,
        settings.cache_folder or default_cache_folder(os.environ),
        cpu_fallback=settings.cpu_fallback,
        memory=MemoryAccount(settings.model_memory_bytes),
        journal=journal,
        step_when_idle=step_when_idle,
        before_buffers=before_buffers,
        message_bytes=settings.max_message_bytes,
        before_execution=before_execution,
        open_memory=open_memory,
        image_decode=settings.image_decode,
        host_pictures=CpuPictures(settings.max_image_pixels),
        part=part,
    )

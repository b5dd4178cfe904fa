"""Puts parts of a server together: the front end, out of the models, permits and threads; and the trial of loads.

Thread: the event loop's.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

from forebay_server.service.clock import Clock
from forebay_server.service.frontend.admission import Admission
from forebay_server.service.frontend.calls import CallTasks
from forebay_server.service.frontend.control.model import ModelRpcs
from forebay_server.service.frontend.control.repository import RepositoryRpcs
from forebay_server.service.frontend.control.settings import SettingsRpcs
from forebay_server.service.frontend.control.statistics import StatisticsRpcs
from forebay_server.service.frontend.frames.servicer import FramesServicer
from forebay_server.service.frontend.heavy_work import HeavyWork
from forebay_server.service.frontend.loop_sink import LoopSink
from forebay_server.service.frontend.memory.cuda import CudaMemoryRpcs
from forebay_server.service.frontend.memory.regions import ClientRegions
from forebay_server.service.frontend.memory.system import SystemMemoryRpcs
from forebay_server.service.frontend.open_inference.errors import INFERENCE_STATUS
from forebay_server.service.frontend.open_inference.lookup import ModelLookup
from forebay_server.service.frontend.open_inference.servicer import InferenceServicer
from forebay_server.service.frontend.reception.receptions import Receptions
from forebay_server.service.frontend.server import FrontEnd
from forebay_server.service.frontend.stream_call import StreamCalls
from forebay_server.service.journal.events import Journal
from forebay_server.service.models.lifecycle import ModelLifecycle
from forebay_server.service.models.opening import VersionContext
from forebay_server.service.models.placement import OpenDevice, open_device_of_kind
from forebay_server.service.models.registry import ModelRegistry
from forebay_server.service.models.rehearsal import Rehearsal, RehearsalSettings
from forebay_server.service.pipeline.permits import Permits
from forebay_server.service.settings import ServeSettings
from forebay_server.service.worker_pool import WorkerPool


@dataclass(frozen=True, slots=True)
class FrontEndParts:
    """The front end, and those of its parts that a server has to do with.

    Attributes:
        frames: serves streams of frames.
        inference: serves the Open Inference Protocol.
        regions: shared memory of clients.
        receptions: messages that are being received.
        front_end: the port.
    """

    frames: FramesServicer
    inference: InferenceServicer
    regions: ClientRegions
    receptions: Receptions
    front_end: FrontEnd


def assemble_front_end(
    settings: ServeSettings,
    clock: Clock,
    registry: ModelRegistry,
    lifecycle: ModelLifecycle,
    pool: WorkerPool,
    permits: Permits,
    sink: LoopSink,
    journal: Journal | None,
    is_ready: Callable[[], bool],
) -> FrontEndParts:
    """Build every part; nothing listens yet.

    Args:
        settings: limits.
        clock: source of monotonic nanoseconds; tests pass a manual one.
        registry: the models that serve.
        lifecycle: loads and unloads them.
        pool: decoding and other heavy work.
        permits: frames and requests that may be held.
        sink: brings completions to the event loop.
        journal: receives one record per stream and per finished frame; None disables observation.
        is_ready: whether the server is ready.
    """
    calls = CallTasks()
    receptions = Receptions(settings, clock, INFERENCE_STATUS)
    admission, streams = Admission(clock, sink.drain), StreamCalls(receptions, permits, clock)
    common = clock, settings, calls, streams, admission
    frames = FramesServicer(registry.find, pool, sink, *common, journal)
    regions = ClientRegions(is_enabled=settings.allow_client_shm)
    lookup = ModelLookup(registry.find, registry.acquire, registry.known_versions, regions, admission)
    groups = (
        RepositoryRpcs(lifecycle, allows_files=settings.allow_model_files),
        StatisticsRpcs(lookup, registry.all),
        SettingsRpcs(lookup),
        SystemMemoryRpcs(regions),
        CudaMemoryRpcs(regions),
    )
    rpcs = ModelRpcs(lookup, registry.versions, is_ready, *groups).methods()
    inference = InferenceServicer(lookup, HeavyWork(pool), rpcs, *common)
    front_end = FrontEnd(frames, inference, receptions, calls, streams, clock, settings)
    return FrontEndParts(frames, inference, regions, receptions, front_end)


def rehearsal_of(settings: ServeSettings, context: VersionContext, open_device: OpenDevice) -> Rehearsal | None:
    """Return what tries loads in a process of its own; None where that is off, or devices cannot be had there."""
    if not settings.rehearse_loads or open_device is not open_device_of_kind:
        return None
    of_process = RehearsalSettings(
        context.engine_options, settings.permits, context.cache_folder, settings.cpu_fallback
    )
    return Rehearsal(of_process, context.memory, os.environ)

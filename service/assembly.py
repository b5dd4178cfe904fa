"""Puts the front end together, out of the models, permits and threads.

Thread: the event loop's.
"""

from collections.abc import Callable
from dataclasses import dataclass

from forebay_server.service.clock import Clock
from forebay_server.service.frontend.admission import Admission
from forebay_server.service.frontend.calls import CallTasks
from forebay_server.service.frontend.control.model import Handlers
from forebay_server.service.frontend.control.reflection import Reflection
from forebay_server.service.frontend.control.rpc import RpcGroup
from forebay_server.service.frontend.control.streams import stream_control_handler
from forebay_server.service.frontend.frames.servicer import FramesServicer
from forebay_server.service.frontend.heavy_work import HeavyWork
from forebay_server.service.frontend.load_reports import LoadReports
from forebay_server.service.frontend.loop_sink import LoopSink
from forebay_server.service.frontend.memory.regions import ClientRegions
from forebay_server.service.frontend.open_inference.errors import INFERENCE_STATUS
from forebay_server.service.frontend.open_inference.lookup import ModelLookup
from forebay_server.service.frontend.open_inference.servicer import InferenceServicer
from forebay_server.service.frontend.reception.receptions import Receptions
from forebay_server.service.frontend.server import FrontEnd
from forebay_server.service.frontend.stream_call import NO_OTHER_STREAMS, OtherStreams, StreamCalls
from forebay_server.service.journal.events import Journal
from forebay_server.service.models.served import ServedModels
from forebay_server.service.pipeline.permits import Permits
from forebay_server.service.restricted import read_restrictions
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


ControlRpcs = Callable[[ModelLookup, ClientRegions], Handlers]
"""Returns the handlers of all RPCs of the Open Inference Protocol but inference, by name."""
StreamControl = Callable[[FramesServicer, InferenceServicer], RpcGroup]
"""Returns the RPCs about the streams of the server."""


def assemble_front_end(
    settings: ServeSettings,
    clock: Clock,
    models: ServedModels,
    pool: WorkerPool,
    permits: Permits,
    sink: LoopSink,
    journal: Journal | None,
    control: ControlRpcs,
    streams_of: StreamControl,
    others: OtherStreams = NO_OTHER_STREAMS,
) -> FrontEndParts:
    """Build every part; nothing listens yet.

    Args:
        settings: limits.
        clock: source of monotonic nanoseconds; tests pass a manual one.
        models: those that serve.
        pool: decoding and other heavy work.
        permits: frames and requests that may be held.
        sink: brings completions to the event loop.
        journal: receives one record per stream and per finished frame; None disables observation.
        control: makes the other RPCs of the Open Inference Protocol.
        streams_of: makes those about streams.
        others: streams of other processes of this server.
    """
    calls = CallTasks()
    receptions = Receptions(settings, clock, INFERENCE_STATUS)
    admission, streams = Admission(clock, sink.drain), StreamCalls(receptions, permits, clock, others)
    common = clock, settings, calls, streams, admission
    frames = FramesServicer(models.find, pool, sink, *common, journal)
    regions = ClientRegions(is_enabled=settings.allow_client_shm)
    lookup = ModelLookup(models.find, models.acquire, models.known_versions, regions, admission)
    load_reports = LoadReports()
    inference = InferenceServicer(lookup, HeavyWork(pool), control(lookup, regions), load_reports, *common)
    restricted = read_restrictions(settings.restricted_protocol)
    about_streams = stream_control_handler(streams_of(frames, inference), is_restricted="streams" in restricted)
    reflection = Reflection(calls, streams, is_restricted="reflection" in restricted) if settings.reflection else None
    front_end = FrontEnd(
        frames, inference, about_streams, reflection, receptions, calls, streams, load_reports, clock, settings
    )
    return FrontEndParts(frames, inference, regions, receptions, front_end)

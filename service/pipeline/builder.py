"""Builds a lane: allocates its slots and device streams, and connects its stages. Blocks; never while serving."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from forebay_server.engines.device import Device, DeviceStream, StreamPriority
from forebay_server.engines.engine import Engine, UnboundEngine
from forebay_server.service.channel import Channel
from forebay_server.service.clock import Clock
from forebay_server.service.errors import InvariantError
from forebay_server.service.journal.events import Journal
from forebay_server.service.pipeline.batch_pictures import BatchPictures, LanePictures
from forebay_server.service.pipeline.d2h import D2hStage
from forebay_server.service.pipeline.execute import BeforeExecution, ExecuteStage
from forebay_server.service.pipeline.h2d import H2dStage
from forebay_server.service.pipeline.inline_runner import InlineRunner, inline_limit_ns
from forebay_server.service.pipeline.model_priority import ModelPriority
from forebay_server.service.pipeline.outputs import OutputReader
from forebay_server.service.pipeline.pipeline import Pipeline, Stages
from forebay_server.service.pipeline.slots import Slot, SlotPool
from forebay_server.service.pipeline.stage import OnFatal, StageContext
from forebay_server.service.pipeline.unbound import UnboundExecute, UnboundH2d, UnboundOutputReader
from forebay_server.service.request import Batch, Completion

SLOT_COUNT = 4
"""The largest depth (3), and one that is being filled: docs/batching.md."""
UNBOUND_LIMIT_BYTES = 256 << 20
"""Most that the outputs of one unbound execution may hold: as much as all requests of several rows of a version."""


@dataclass(frozen=True, slots=True)
class LaneContext:
    """The parts that the lanes of one model version share.

    Attributes:
        clock: source of monotonic nanoseconds; tests pass a manual one.
        model_version: named in completions.
        finish: takes completions. Thread: d2h, or the one that submits for a batch that runs inline.
        on_fatal: called with an error after which the process cannot go on.
        slot_count: slots to allocate for each lane.
        journal: receives one record per batch; None disables observation.
        unbound_limit_bytes: most that the outputs of one unbound execution may hold.
        before_execution: for tests, see `service.pipeline.execute`.
        reader: reads outputs out of slots and has its own `finish`; None: they are copied for this process.
        pictures: for devices that write pictures; None: every request brings rows.
    """

    clock: Clock
    model_version: str
    finish: Callable[[Sequence[Completion]], None]
    on_fatal: OnFatal
    slot_count: int = SLOT_COUNT
    journal: Journal | None = None
    unbound_limit_bytes: int = UNBOUND_LIMIT_BYTES
    before_execution: BeforeExecution | None = None
    reader: OutputReader | None = None
    pictures: LanePictures | None = None


def build_lane(
    index: int,
    name: str,
    device: Device,
    engine: Engine,
    context: LaneContext,
    priority: ModelPriority = ModelPriority(),  # noqa: B008 - frozen
) -> Pipeline:
    """Build a lane whose threads are not started. The calling thread is attached to `device` then.

    Args:
        index: of the lane within its model version.
        name: prefix of thread and channel names.
        device: where it runs; the lane does not close it.
        engine: one instance; the lane closes it.
        context: the parts that it shares with the version's other lanes.
        priority: of the model among those that share the device.

    Raises:
        EngineError: memory or a device stream cannot be had; nothing is left behind.
    """
    device.attach_thread()
    with ExitStack() as undo:  # an allocation that does not fit leaves nothing behind
        slots = _allocate_slots(device, engine, context.slot_count, undo)
        parts = _connect(name, device, slots, context, priority, undo)
        pictures = None
        if context.pictures is not None:
            rows = engine.specs.max_batch_size
            pictures = BatchPictures(context.pictures, device, rows, len(slots), parts[0].device_stream)
        undo.pop_all()
    pool = SlotPool(slots)
    stages = _stages(parts, engine, pool, context, pictures)
    stages.d2h.journal = context.journal
    inline = InlineRunner(stages, inline_limit_ns(device, engine.specs))
    return Pipeline(index, device, engine, pool, stages, tuple(part.inbound for part in parts), inline)


def _allocate_slots(device: Device, engine: Engine, count: int, undo: ExitStack) -> tuple[Slot, ...]:
    slots: list[Slot] = []
    for slot_index in range(count):
        slots.append(Slot(slot_index, device, engine.specs))
        undo.callback(slots[-1].close)
    return tuple(slots)


def _connect(
    name: str,
    device: Device,
    slots: tuple[Slot, ...],
    context: LaneContext,
    priority: ModelPriority,
    undo: ExitStack,
) -> tuple[StageContext, StageContext, StageContext]:
    """Make the device stream and the inbound channel of each stage.

    A channel holds as many batches as there are slots, so that passing a batch on never blocks.
    """

    def stream(kind: str, urgency: StreamPriority) -> DeviceStream:
        device_stream = device.create_stream(f"{name}.{kind}", priority=urgency)
        undo.callback(device_stream.close)
        return device_stream

    def part(kind: str, urgency: StreamPriority, outbound: Channel[Batch] | None) -> StageContext:
        return StageContext(
            name=f"{name}.{kind}",
            device=device,
            device_stream=stream(kind, urgency),
            priority=urgency,
            slots=slots,
            inbound=Channel[Batch](f"{name}.to_{kind}", len(slots), context.clock),
            outbound=outbound,
            clock=context.clock,
            on_fatal=context.on_fatal,
        )

    d2h = part("d2h", StreamPriority.COPY, None)
    execute = part("execute", priority.of_device_stream, d2h.inbound)
    return part("h2d", StreamPriority.COPY, execute.inbound), execute, d2h


def _stages(
    parts: tuple[StageContext, StageContext, StageContext],
    engine: Engine,
    pool: SlotPool,
    context: LaneContext,
    pictures: BatchPictures | None,
) -> Stages:
    h2d, execute, d2h = parts
    specs, version, finish = engine.specs, context.model_version, context.finish
    if specs.is_fixed:
        return Stages(
            H2dStage(h2d, specs.inputs, pictures),
            ExecuteStage(execute, engine, context.before_execution),
            D2hStage(d2h, specs.outputs, pool, context.reader or OutputReader(specs.outputs, version, finish)),
        )
    if not isinstance(engine, UnboundEngine):
        raise InvariantError("an engine that runs only fixed shapes got others")
    return Stages(
        UnboundH2d(h2d),
        UnboundExecute(execute, engine, specs, context.unbound_limit_bytes, context.before_execution),
        D2hStage(d2h, (), pool, context.reader or UnboundOutputReader(specs, version, finish)),
    )

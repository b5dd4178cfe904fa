"""One lane: an engine instance with its slots, three device streams and three stage threads.

Flow: submit -> h2d -> execute -> d2h -> completions. Channels hold as many batches as there are slots, so that passing
a batch on never blocks. `close` drains left to right, joins, and frees.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from forebay_server.engines.device import Device, DeviceStream, StreamPriority
from forebay_server.engines.engine import Engine, UnboundEngine
from forebay_server.service.channel import Channel
from forebay_server.service.clock import Clock
from forebay_server.service.errors import InvariantError
from forebay_server.service.journal.events import Journal
from forebay_server.service.pipeline.d2h import D2hStage
from forebay_server.service.pipeline.delivery import Delivery
from forebay_server.service.pipeline.execute import BeforeExecution, ExecuteStage
from forebay_server.service.pipeline.h2d import H2dStage
from forebay_server.service.pipeline.model_priority import ModelPriority
from forebay_server.service.pipeline.slots import Slot, SlotPool
from forebay_server.service.pipeline.stage import OnFatal, Stage, StageContext
from forebay_server.service.pipeline.unbound import UnboundDelivery, UnboundExecute, UnboundH2d
from forebay_server.service.request import Batch, Completion, LaneListener

SLOT_COUNT = 4  # the largest DEPTH (3), and one that is being filled: docs/batching.md
UNBOUND_LIMIT_BYTES = 256 << 20
STAGE_KINDS = ("h2d", "execute", "d2h")
RUN_THROUGH_NS = 200_000
"""What handing a batch from thread to thread takes: less work is done sooner without (docs/adr/0070)."""


class Pipeline:
    """Implements service.request.Lane. Thread: `try_reserve`, `unreserve` and `submit` by the former alone.

    Args:
        index: of the lane within its model version.
        name: prefix of thread and channel names.
        device: where it runs; not closed here. Whoever opens, tries and closes a lane is attached to it by that.
        engine: one instance; closed with the pipeline.
        clock: time.
        model_version: named in completions.
        finish: where completions go. Thread: d2h, or the former's for a batch that runs through.
        on_fatal: told about errors after which the process cannot go on.
        slot_count: slots to allocate.
        journal: told about batches; None if nobody observes.
        unbound_limit_bytes: most that the outputs of one unbound execution may hold.
        priority: of the model among those that share the device.
        before_execution: for tests, see `service.pipeline.execute`.

    Attributes:
        run_through_ns: work below this is done by `submit` itself, if the lane is empty; 0 if it never is.
    """

    def __init__(
        self,
        index: int,
        name: str,
        device: Device,
        engine: Engine,
        clock: Clock,
        *,
        model_version: str,
        finish: Callable[[Sequence[Completion]], None],
        on_fatal: OnFatal,
        slot_count: int = SLOT_COUNT,
        journal: Journal | None = None,
        unbound_limit_bytes: int = UNBOUND_LIMIT_BYTES,
        priority: ModelPriority = ModelPriority(),  # noqa: B008 - frozen
        before_execution: BeforeExecution | None = None,
    ) -> None:
        self.index = index
        self.device = device
        self.slot_count = slot_count
        device.attach_thread()
        # What an unbound execution takes depends on the shapes, which nobody predicts.
        self.run_through_ns = RUN_THROUGH_NS if device.is_synchronous and engine.specs.is_fixed else 0
        self.engine = engine
        specs = engine.specs
        slots: list[Slot] = []
        device_streams: list[DeviceStream] = []
        with ExitStack() as undo:  # an allocation that does not fit leaves nothing behind
            for slot_index in range(slot_count):
                slots.append(Slot(slot_index, device, specs))
                undo.callback(slots[-1].close)
            for kind in STAGE_KINDS:
                urgency = priority.of_device_stream if kind == "execute" else StreamPriority.COPY
                device_streams.append(device.create_stream(f"{name}.{kind}", priority=urgency))
                undo.callback(device_streams[-1].close)
            undo.pop_all()
        self.pool = SlotPool(tuple(slots))
        self.channels = tuple(Channel[Batch](f"{name}.to_{kind}", slot_count, clock) for kind in STAGE_KINDS)
        outbounds = (*self.channels[1:], None)
        contexts = [
            StageContext(
                name=f"{name}.{kind}",
                device=device,
                device_stream=device_stream,
                slots=self.pool.slots,
                inbound=inbound,
                outbound=outbound,
                clock=clock,
                on_fatal=on_fatal,
            )
            for kind, device_stream, inbound, outbound in zip(
                STAGE_KINDS, device_streams, self.channels, outbounds, strict=True
            )
        ]
        self.h2d: Stage
        self.execute: Stage
        if specs.is_fixed:
            self.h2d = H2dStage(contexts[0], specs.inputs)
            self.execute = ExecuteStage(contexts[1], engine, before_execution)
            self.d2h = D2hStage(contexts[2], specs.outputs, self.pool, Delivery(specs.outputs, model_version, finish))
        else:
            if not isinstance(engine, UnboundEngine):
                raise InvariantError("an engine that runs only fixed shapes got others")
            self.h2d = UnboundH2d(contexts[0])
            self.execute = UnboundExecute(contexts[1], engine, specs, unbound_limit_bytes, before_execution)
            self.d2h = D2hStage(contexts[2], (), self.pool, UnboundDelivery(specs, model_version, finish))
        self.d2h.journal = journal
        self._is_started = False

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Left to right."""
        return (self.h2d, self.execute, self.d2h)

    def warm_up(self, batch_sizes: tuple[int, ...]) -> None:
        """Bind every slot and run every batch size on each; nothing for an unbound model. Blocks. Before `start`."""
        if not self.engine.specs.is_fixed:
            return
        self.device.attach_thread()
        for slot in self.pool.slots:
            self.engine.bind(slot.buffers)
        self.engine.warm_up(batch_sizes, self.execute.device_stream)
        self.execute.device_stream.sync()

    def run_once(self, batch: Batch) -> None:
        """Take one batch through all stages on the calling thread, for calibration. Before `start`.

        The batch's slot has been reserved. Raises the batch's error, if it has one.
        """
        if self._is_started:
            raise InvariantError("run_once after start")
        self.device.attach_thread()
        self._run_through(batch)
        if batch.error is not None:
            raise batch.error

    def start(self, listener: LaneListener) -> None:
        """Start the threads."""
        self.d2h.listener = listener
        self._is_started = True
        for stage in self.stages:
            stage.start()

    def try_reserve(self) -> int | None:
        """FREE -> RESERVED; return the slot's index, or None. Thread: former."""
        slot = self.pool.try_reserve()
        return None if slot is None else slot.index

    def unreserve(self, slot_index: int) -> None:
        """RESERVED -> FREE: nothing to send. Thread: former."""
        self.pool.release(self.pool.slots[slot_index])

    def submit(self, batch: Batch) -> bool:
        """Send a batch in its reserved slot on its way; return whether it has come to its end already.

        Alone in the lane and with little to do on a synchronous device, it goes through all stages on the calling
        thread: nothing could overlap with it, and the lane's threads wait in their channels and touch nothing.
        Thread: former. Blocks: for less than `RUN_THROUGH_NS`, as expected.
        """
        if batch.is_alone and batch.work_ns < self.run_through_ns:
            self._run_through(batch)
            return True
        self.channels[0].send_now(batch)
        return False

    def _run_through(self, batch: Batch) -> None:
        for stage in self.stages:
            stage.process(batch)

    def close(self, timeout_s: float | None = None) -> bool:
        """Drain left to right, join, and free everything. Idempotent.

        Returns:
            Whether every stage ended within `timeout_s` each. If not, nothing is freed: a thread may still be inside
            the engine, and the process is about to end.
        """
        self.channels[0].close()
        if self._is_started and not all(stage.join(timeout_s) for stage in self.stages):
            return False
        self.device.attach_thread()
        for stage in self.stages:
            stage.device_stream.close()
        self.engine.close()
        self.pool.close()
        return True

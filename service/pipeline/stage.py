"""A stage: one named thread that does one kind of device work for batch after batch.

A stage takes batches from its inbound channel, works on those that have not failed, and passes every batch on, failed
or not, so that the last stage sees the end of each. It ends when its inbound channel is closed and empty, and closes
its outbound channel then: closing the first channel drains the pipeline left to right.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import structlog

from forebay_server.engines.device import Device, DeviceStream, Event, StreamPriority
from forebay_server.engines.errors import DeviceLostError as EngineDeviceLostError
from forebay_server.engines.errors import EngineError, ExecutionError
from forebay_server.engines.ranges import open_ranges
from forebay_server.service.channel import Channel, ChannelClosedError
from forebay_server.service.clock import Clock
from forebay_server.service.errors import BatchFailedError, DeviceLostError, InvariantError, ServiceError, internal
from forebay_server.service.pipeline.slots import Slot, SlotState
from forebay_server.service.request import Batch
from forebay_server.service.thread_name import name_this_thread

OnFatal = Callable[[BaseException], None]
log = structlog.get_logger(__name__)


def translate(error: Exception) -> ServiceError:
    """Turn what a device or an engine raised into what a client may see. The only place that does."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, EngineDeviceLostError):
        return DeviceLostError("the device is lost; the server is restarting")
    if isinstance(error, EngineError):
        return BatchFailedError("the model failed on this batch; send the frame again")
    return internal(error)


@dataclass(frozen=True, slots=True)
class StageContext:
    """The parts that all stages of a lane share, and one stage's place in the lane.

    Attributes:
        name: of the thread.
        device: attached to the thread before the first batch.
        device_stream: this stage's own; one thread at a time uses it, as in `Stage.process`.
        slots: by index.
        inbound: batches to work on.
        outbound: where they go next; None for the last stage.
        clock: source of monotonic nanoseconds; tests pass a manual one.
        on_fatal: called with an error after which the process cannot go on, on the thread that runs `Stage.process`.
        priority: of the device stream, and of this stage's thread where threads do the device's work.
    """

    name: str
    device: Device
    device_stream: DeviceStream
    slots: tuple[Slot, ...]
    inbound: Channel[Batch]
    outbound: Channel[Batch] | None
    clock: Clock
    on_fatal: OnFatal
    priority: StreamPriority = StreamPriority.NORMAL


class Stage(ABC):
    """Base of h2d, execute and d2h."""

    def __init__(self, context: StageContext) -> None:
        self.name = context.name
        self.device = context.device
        self.device_stream = context.device_stream
        self.clock = context.clock
        self.busy_since_ns = 0  # 0 while idle; the thread that runs `process` writes it, the watchdog reads it
        self._context = context
        self._is_started = False
        self._open_range = open_ranges()
        self._work = self.work if self._open_range is None else self._work_in_range
        self._thread = threading.Thread(target=self._run, name=context.name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._is_started = True
        self._thread.start()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the thread to end, which it does after its inbound channel is closed; say whether it has."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def close(self) -> None:
        """Free the device stream after its work is done; the thread has ended. The caller is attached to the device."""
        self.device_stream.close()

    @abstractmethod
    def work(self, batch: Batch, slot: Slot) -> None:
        """Do this stage's part for a batch that has not failed. Raises EngineError or ServiceError on failure."""

    def event_before(self, slot: Slot) -> Event | None:  # noqa: ARG002 - for the stages that have one
        """Return the event that this stage's device stream waits for: the end of the stage before."""
        return None

    def finish(self, batch: Batch, slot: Slot) -> None:  # noqa: ARG002 - for the last stage
        """End this stage's part of a batch, failed or not, before it is passed on. The stage is idle from here on."""
        self.busy_since_ns = 0

    def process(self, batch: Batch) -> None:
        """Work on one batch and record its failure, if any, in it.

        Thread: this stage's; for a batch that is alone in its lane also the former's, and the caller's in calibration.
        """
        slot = self._context.slots[batch.slot_index]
        self.busy_since_ns = self.clock.now_ns()
        if batch.error is None:
            try:
                self._work(batch, slot)
            except Exception as error:  # noqa: BLE001 - any error of an engine fails this batch, never the thread
                self._fail(batch, slot, error)
        self.finish(batch, slot)  # nothing after it: another thread may be at the next batch

    def _work_in_range(self, batch: Batch, slot: Slot) -> None:
        assert self._open_range is not None  # noqa: S101 - for mypy: bound only then
        with self._open_range(f"{self.name} batch {batch.id} of {batch.rows}"):
            self.work(batch, slot)

    def _fail(self, batch: Batch, slot: Slot, error: Exception) -> None:
        batch.error = translate(error)
        if batch.error is not error:
            batch.error.__cause__ = error  # calibration shows the operator what the client may not see
        # Before `start` the batch is a trial: the code that runs it decides whether its failure is a fault.
        note = log.error if self._is_started else log.debug
        note("batch failed", stage=self.name, batch=batch.id, rows=batch.rows, error=repr(error))
        if not isinstance(batch.error, DeviceLostError):
            try:
                self._settle(slot)
            except EngineError:
                batch.error = DeviceLostError("the device is lost; the server is restarting")
                log.exception("device lost", stage=self.name)
        if slot.state is not SlotState.FREE:
            slot.move_to(SlotState.FAILED)
        if isinstance(batch.error, DeviceLostError | InvariantError):
            self._context.on_fatal(batch.error)

    def _settle(self, slot: Slot) -> None:
        """Wait until nothing on the device touches the slot. Raises EngineError if that cannot be known.

        The wait for the previous stage may have failed. Then this stage's stream says nothing about the work of that
        stage (tests/pipeline/test_faults.py).
        """
        before = self.event_before(slot)
        if before is not None:
            with suppress(ExecutionError):  # it has been waited for, and the batch has failed already
                before.sync()
        self.device_stream.sync()

    def _run(self) -> None:
        name_this_thread()
        inbound, outbound = self._context.inbound, self._context.outbound
        try:
            self.device.attach_thread()
            self.device.rank_thread(self._context.priority)
            while True:
                batch = inbound.receive()
                self.process(batch)
                if outbound is not None:
                    outbound.send_now(batch)
        except ChannelClosedError:
            pass
        except Exception as error:
            log.exception("stage died", stage=self.name)
            self._context.on_fatal(translate(error))
        finally:
            if outbound is not None:
                outbound.close()

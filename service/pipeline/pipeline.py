"""One lane: an engine instance with its slots, three device streams and three stage threads.

Flow: submit -> h2d -> execute -> d2h -> completions. `service.pipeline.builder` builds it, `inline_runner` tells which
batches go another way and why. `close` drains left to right, joins, and frees.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from forebay_server.engines.device import Device
from forebay_server.engines.engine import Engine
from forebay_server.service.channel import Channel
from forebay_server.service.errors import InvariantError
from forebay_server.service.lane import LaneListener
from forebay_server.service.pipeline.d2h import D2hStage
from forebay_server.service.pipeline.inline_runner import InlineRunner
from forebay_server.service.pipeline.slots import Slot, SlotPool
from forebay_server.service.pipeline.stage import Stage
from forebay_server.service.request import Batch


class Stages(NamedTuple):
    """Left to right."""

    h2d: Stage
    execute: Stage
    d2h: D2hStage


class Pipeline:
    """Implements service.request.Lane. Thread: `try_reserve`, `unreserve` and `submit` by the former alone.

    Args:
        index: of the lane within its model version.
        device: where it runs; not closed here. A thread that opens, tries or closes a lane is attached to it by that.
        engine: one instance; closed with the pipeline.
        pool: the lane's slots; closed with the pipeline.
        stages: connected by `channels`; their device streams are closed with the pipeline.
        channels: inbound ones of the stages, left to right.
        inline: runs batches that are too short for three threads.
    """

    def __init__(
        self,
        index: int,
        device: Device,
        engine: Engine,
        pool: SlotPool,
        stages: Stages,
        channels: tuple[Channel[Batch], ...],
        inline: InlineRunner,
    ) -> None:
        self.index = index
        self.device = device
        self.engine = engine
        self.pool = pool
        self.stages = stages
        self.h2d, self.execute, self.d2h = stages
        self.channels = channels
        self.inline = inline
        self.slot_count = len(pool.slots)
        self._is_started = False

    def warm_up(self, batch_sizes: tuple[int, ...], example: Sequence[NDArray[Any] | None] | None = None) -> None:
        """Bind every slot and run every batch size on each; nothing for an unbound model. Blocks. Before `start`.

        Args:
            batch_sizes: in rows.
            example: the inputs of one row, of which all rows are copies; None for zeros.
        """
        if not self.engine.specs.is_fixed:
            return
        self.device.attach_thread()
        for slot in self.pool.slots:
            if example is not None:
                self._fill(slot, example)
            self.engine.bind(slot.buffers)
        self.engine.warm_up(batch_sizes, self.execute.device_stream)
        self.execute.device_stream.sync()

    def _fill(self, slot: Slot, example: Sequence[NDArray[Any] | None]) -> None:
        device_stream = self.execute.device_stream
        for host, buffer, array in zip(slot.host_inputs, slot.device_inputs, example, strict=True):
            assert array is not None  # noqa: S101 - a model with an optional input runs unbound
            row = np.frombuffer(array.tobytes(), np.uint8)
            if row.size:
                host.write_view().reshape(-1, row.size)[:] = row
            device_stream.copy_h2d(buffer, host, host.nbytes)
        device_stream.sync()

    def run_once(self, batch: Batch) -> None:
        """Take one batch through all stages on the calling thread, for calibration. Before `start`.

        The batch's slot has been reserved. Raises the batch's error, if it has one.
        """
        if self._is_started:
            raise InvariantError("run_once after start")
        self.device.attach_thread()
        self.inline.run(batch)
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

        A short batch on an empty lane runs inline, on the calling thread.
        Thread: former. Blocks: for less than `InlineRunner.limit_ns`, as expected.
        """
        if self.inline.takes(batch):
            self.inline.run(batch)
            return True
        self.channels[0].send_now(batch)
        return False

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
            stage.close()
        self.engine.close()
        self.pool.close()
        return True

"""Stage 3: bring the outputs back, tell the former, read them out, and free the slot. The only stage that waits.

It waits on the host first for `executed`, so that the former learns at once when compute ended and the frame buffers
return to the arena, and then for `downloaded`.
"""

from forebay_server.engines.device import Event
from forebay_server.engines.engine import TensorSpec
from forebay_server.service.errors import BatchFailedError, DeviceLostError
from forebay_server.service.journal.events import BatchEvent, Journal
from forebay_server.service.lane import LaneListener
from forebay_server.service.pipeline.outputs import OutputReader
from forebay_server.service.pipeline.slots import Slot, SlotPool, SlotState
from forebay_server.service.pipeline.stage import Stage, StageContext
from forebay_server.service.request import Batch, Request


class D2hStage(Stage):
    """Owns the end of every batch, failed or not."""

    def __init__(
        self, context: StageContext, outputs: tuple[TensorSpec, ...], pool: SlotPool, reader: OutputReader
    ) -> None:
        super().__init__(context)
        self.listener: LaneListener | None = None  # the former, set before the first batch; None in warm-up
        self.journal: Journal | None = None  # set before the first batch; None: no observation
        self._row_bytes = tuple(spec.row_bytes for spec in outputs)
        self._pool = pool
        self._label = self.name.rsplit(".", 2)[0]  # MODEL.VERSION of MODEL.VERSION.LANE.d2h
        self._reader = reader

    def event_before(self, slot: Slot) -> Event | None:
        """Return the end of the execution."""
        return slot.executed

    def work(self, batch: Batch, slot: Slot) -> None:
        """Enqueue the download, wait for both events, stamp, and hand the outputs on."""
        if not batch.claim.is_started:
            return  # the former has taken it back: nothing was executed
        stream = self.device_stream
        stream.wait(slot.executed)
        stream.record(slot.download_started)
        for row_bytes, source, target in zip(self._row_bytes, slot.current_outputs, slot.host_outputs, strict=True):
            stream.copy_d2h(target, source, batch.rows * row_bytes)
        stream.record(slot.downloaded)
        slot.move_to(SlotState.DOWNLOADING)
        slot.executed.sync()
        ended_ns = self.clock.now_ns()
        h2d_ns = slot.uploaded.elapsed_ns(slot.upload_started)
        execute_ns = slot.executed.elapsed_ns(slot.execute_started)
        if self.listener is not None:
            self.listener.compute_ended(batch, ended_ns, h2d_ns, execute_ns)
        release_frames(batch)
        is_told = self.journal is not None and self.listener is not None
        upload_to_end_ns = slot.executed.elapsed_ns(slot.upload_started) if is_told else 0  # while it downloads
        slot.downloaded.sync()
        readable_ns = self.clock.now_ns()
        d2h_ns = slot.downloaded.elapsed_ns(slot.download_started)
        slot.move_to(SlotState.READY)
        for request in batch.requests:
            timeline = request.timeline
            timeline.h2d_ns, timeline.execute_ns, timeline.d2h_ns = h2d_ns, execute_ns, d2h_ns
            timeline.readable_ns = readable_ns
            timeline.batch_id = batch.id
        if is_told:
            after_execute_ns = slot.downloaded.elapsed_ns(slot.executed)
            # Events tell differences only. Both instants are when this thread came to know, at the end of execution and
            # of the download or later: the earlier of the two estimates is the better one.
            execute_end_ns = min(ended_ns, readable_ns - after_execute_ns)
            self._tell(batch, execute_end_ns - upload_to_end_ns, execute_end_ns, execute_end_ns + after_execute_ns)

    def _tell(self, batch: Batch, upload_start_ns: int, execute_end_ns: int, download_end_ns: int) -> None:
        """Note when the device did what, on the host's clock."""
        assert self.journal is not None  # noqa: S101 - for mypy: the caller looked
        timeline = batch.requests[0].timeline
        self.journal.batches.append(
            BatchEvent(
                label=self._label,
                lane=batch.lane_index,
                id=batch.id,
                rows=batch.rows,
                executed_rows=batch.executed_rows,
                formed_ns=batch.formed_ns,
                upload_start_ns=upload_start_ns,
                upload_end_ns=upload_start_ns + timeline.h2d_ns,
                execute_start_ns=execute_end_ns - timeline.execute_ns,
                execute_end_ns=execute_end_ns,
                download_start_ns=download_end_ns - timeline.d2h_ns,
                download_end_ns=download_end_ns,
            )
        )

    def finish(self, batch: Batch, slot: Slot) -> None:
        """Read the outputs out, free the slot, tell the former; a lost device keeps its slot for ever."""
        if not batch.claim.is_started:
            self._pass_on(batch, slot)
            return
        is_lost = isinstance(batch.error, DeviceLostError)
        retries: list[Request] = []
        if batch.error is not None:
            retries = self._take_retries(batch)
            release_frames(batch)
        try:
            completions = self._reader.take_outputs(batch, slot)
        finally:
            if not is_lost:
                self._pool.release(slot)
        self._reader.post(completions)
        super().finish(batch, slot)  # before the former knows: it may run the next batch through this stage at once
        if not is_lost and self.listener is not None:
            d2h_ns = 0 if batch.error is not None else batch.requests[0].timeline.d2h_ns
            self.listener.slot_freed(batch.lane_index, slot.index, d2h_ns)
            for request in retries:
                self.listener.arrive(request)

    def _pass_on(self, batch: Batch, slot: Slot) -> None:
        """Free the slot of a batch that the former has taken back. Its requests are the former's."""
        self._pool.release(slot)
        super().finish(batch, slot)
        if self.listener is not None:
            self.listener.slot_freed(batch.lane_index, slot.index, 0)

    def _take_retries(self, batch: Batch) -> list[Request]:
        """Take those requests out of a failed batch that may run once more, alone: one of them may be the cause.

        A request whose frame buffer has gone back, or that was alone already, stays and fails.
        """
        if self.listener is None or len(batch.requests) == 1 or not isinstance(batch.error, BatchFailedError):
            return []
        retries = [request for request in batch.requests if not (request.is_retry or request.frame.is_released)]
        batch.requests = [request for request in batch.requests if request not in retries]
        for request in retries:
            request.run_alone()
        return retries


def release_frames(batch: Batch) -> None:
    """Give the frame buffers back to the arena: their upload is done, or will never be."""
    for request in batch.requests:
        request.frame.release()

"""Stage 1: bring the inputs of a batch to the device. Never blocks on the device."""

from forebay_server.engines.engine import TensorSpec
from forebay_server.service.pipeline.slots import Slot, SlotState
from forebay_server.service.pipeline.stage import Stage, StageContext
from forebay_server.service.request import Batch


class H2dStage(Stage):
    """Copies large rows straight from the frame arena, all with one call, and gathers small ones on the host.

    On a synchronous device the frames have been read when `work` returns, and the former may take the batch back until
    it is executed. On any other device the copies still go on then: the batch has started, since its frames must not be
    used for anything else.

    If you move the record of `uploaded` before the copies, execution reads half a batch
    (tests/pipeline/test_ordering_edges.py).
    """

    def __init__(self, context: StageContext, inputs: tuple[TensorSpec, ...]) -> None:
        super().__init__(context)
        self._row_bytes = tuple(spec.row_bytes for spec in inputs)
        self._starts = not self.device.is_synchronous

    def work(self, batch: Batch, slot: Slot) -> None:
        """Fill the slot and enqueue the upload, unless the former has taken the batch back."""
        claim = batch.claim
        if not (claim.start() if self._starts else claim.hold()):
            return
        try:
            self._upload(batch, slot)
        finally:
            claim.let_go()

    def _upload(self, batch: Batch, slot: Slot) -> None:
        batch.upload_started_ns = self.clock.now_ns()
        slot.move_to(SlotState.FILLING)
        self.device_stream.record(slot.upload_started)
        for index, row_bytes in enumerate(self._row_bytes):
            if row_bytes < self.device.gather_below_bytes:
                self._gather(batch, slot, index, row_bytes)
            else:
                rows = [(each.frame.host, each.frame.offsets[index], each.size * row_bytes) for each in batch.requests]
                self.device_stream.gather_h2d(slot.device_inputs[index], rows)
        self.device_stream.record(slot.uploaded)
        slot.move_to(SlotState.UPLOADING)

    def _gather(self, batch: Batch, slot: Slot, index: int, row_bytes: int) -> None:
        end = 0
        host = slot.host_inputs[index]
        rows = host.write_view().data  # a copy between memoryviews keeps the interpreter's lock, numpy's lets go of it
        for request in batch.requests:
            frame = request.frame
            nbytes = request.size * row_bytes
            start = frame.offsets[index]
            rows[end : end + nbytes] = frame.host.read_view().data[start : start + nbytes]
            end += nbytes
        self.device_stream.copy_h2d(slot.device_inputs[index], host, end)

"""Stage 1: bring the inputs of a batch to the device. Never blocks on the device, except for very large pictures."""

from forebay_server.engines.engine import TensorSpec
from forebay_server.service.pipeline.batch_pictures import BatchPictures
from forebay_server.service.pipeline.slots import Slot, SlotState
from forebay_server.service.pipeline.stage import Stage, StageContext
from forebay_server.service.request import Batch


class H2dStage(Stage):
    """Copies large rows straight from the frame arena, all with one call, and gathers small ones on the host.

    Pictures that the device decodes or converts (`Request.picture`) are written last, on the same device stream.

    On a synchronous device the frames have been read when `work` returns, and the former may take the batch back until
    it is executed. On any other device the copies still go on then: the batch has started, since its frames must not be
    used for anything else.

    If you move the record of `uploaded` before the copies or the pictures, execution reads half a batch
    (tests/pipeline/test_ordering_edges.py).

    Args:
        context: of the stage.
        inputs: of the model.
        pictures: writes pictures; owned. None: every request brings rows.
    """

    def __init__(
        self, context: StageContext, inputs: tuple[TensorSpec, ...], pictures: BatchPictures | None = None
    ) -> None:
        super().__init__(context)
        self.pictures = pictures
        self._row_bytes = tuple(spec.row_bytes for spec in inputs)
        self._starts = not self.device.is_synchronous

    def close(self) -> None:
        """Free the device stream, and the writer of pictures."""
        super().close()
        if self.pictures is not None:
            self.pictures.close()

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
        pictures = self.pictures
        if pictures is not None and any(request.picture is not None for request in batch.requests):
            self._copy(batch, slot, except_index=pictures.index)
            self._copy_apart(batch, slot, pictures.index)
            pictures.write(batch, slot)
        else:
            self._copy(batch, slot)
        self.device_stream.record(slot.uploaded)
        slot.move_to(SlotState.UPLOADING)

    def _copy(self, batch: Batch, slot: Slot, except_index: int = -1) -> None:
        for index, row_bytes in enumerate(self._row_bytes):
            if index == except_index:
                continue
            if row_bytes < self.device.gather_below_bytes:
                self._gather(batch, slot, index, row_bytes)
            else:
                rows = [(each.frame.host, each.frame.offsets[index], each.size * row_bytes) for each in batch.requests]
                self.device_stream.gather_h2d(slot.device_inputs[index], rows)

    def _copy_apart(self, batch: Batch, slot: Slot, index: int) -> None:
        """Copy the rows of requests without a picture, each to its own place between those of pictures."""
        row_bytes, end = self._row_bytes[index], 0
        for request in batch.requests:
            start, end = end, end + request.size * row_bytes
            if request.picture is None:
                frame = request.frame
                target = slot.device_inputs[index]
                self.device_stream.copy_h2d(target, frame.host, end - start, start, frame.offsets[index])

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

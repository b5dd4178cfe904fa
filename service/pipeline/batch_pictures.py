"""The pictures of a batch: the device writes them into the slot, and those that it refuses are decoded here.

A picture that no decoder takes ends its own request (`Request.fault`); its row of the batch holds anything, and nothing
of what the model makes of it leaves the server.

Thread: the h2d stage's, or the one that runs a batch inline.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from forebay_server.engines.device import Device, DeviceStream
from forebay_server.engines.pictures import JpegFile, PictureLimits, PictureRow, PictureSource, PictureWriter
from forebay_server.service.errors import InvariantError, ServiceError
from forebay_server.service.pictures.device_picture import DevicePicture, FilePicture
from forebay_server.service.pictures.on_device import form_of, row_of
from forebay_server.service.pictures.picture_input import PictureInput
from forebay_server.service.pipeline.slots import Slot
from forebay_server.service.request import Batch, FrameBuffer, Request


class HostPictures(Protocol):
    """The CPU's way. Thread: any."""

    def decode(self, target: NDArray[Any], file: memoryview, picture: PictureInput) -> None:
        """Write a JPEG file as the model takes it.

        Args:
            target: of the shape and type of `picture`, C-contiguous; written.
            file: whole; borrowed.
            picture: of the model.

        Raises:
            InvalidRequestError: it cannot be decoded.
        """
        ...

    def example(self, size: tuple[int, int]) -> bytes:
        """Return a JPEG file as cameras send them, to measure with."""
        ...


@dataclass(frozen=True, slots=True)
class LanePictures:
    """The needs of lanes whose devices write pictures.

    Attributes:
        picture: of the model.
        file_pixels: most pixels of a file; 0: the devices decode none.
        host: decodes files that a device refuses.
        on_refused: called with the number of files that a device has refused. Thread: the lane's.
    """

    picture: PictureInput
    file_pixels: int
    host: HostPictures
    on_refused: Callable[[int], None] = lambda _: None


class BatchPictures:
    """See the module.

    Args:
        lane: of the version.
        device: of the lane; the calling thread is attached to it.
        rows: of the largest batch.
        slots: of the lane.
        device_stream: of the h2d stage.

    Attributes:
        index: of the picture among the model's inputs.
    """

    def __init__(self, lane: LanePictures, device: Device, rows: int, slots: int, device_stream: DeviceStream) -> None:
        self.index = lane.picture.input_index
        self.decodes_files = lane.file_pixels > 0
        self._lane = lane
        self._stream = device_stream
        limits = PictureLimits(rows, slots, lane.file_pixels)
        self._writer: PictureWriter = device.open_pictures(form_of(lane.picture), limits, device_stream)

    def write(self, batch: Batch, slot: Slot) -> None:
        """Enqueue every picture of a batch, after the copies of its other rows. Raises EngineError."""
        picture = self._lane.picture
        rows: list[PictureRow] = []
        requests: dict[int, Request] = {}
        row = 0
        for request in batch.requests:
            if request.picture is not None:
                rows.append(row_of(picture, _source(request.picture, request.frame), row))
                requests[row] = request
            row += request.size
        refused = self._writer.write(rows, slot.device_inputs[self.index], slot.index)
        if refused:
            self._lane.on_refused(len(refused))
            self._write_refused(refused, requests, slot)

    def close(self) -> None:
        """Free everything; the device stream is idle."""
        self._writer.close()

    def _write_refused(self, refused: Sequence[PictureRow], requests: dict[int, Request], slot: Slot) -> None:
        """Decode on the CPU, and enqueue the copies once all are decoded: a copy may still read the memory."""
        picture, host = self._lane.picture, slot.host_inputs[self.index]
        row_bytes = picture.nbytes
        memory = host.write_view()
        decoded: list[int] = []
        for each in refused:
            source, request = each.source, requests[each.row]
            if not isinstance(source, JpegFile):
                raise InvariantError("a device refused planes")
            file = source.host.read_view()[source.offset : source.offset + source.nbytes]
            target = memory[each.row * row_bytes : (each.row + 1) * row_bytes]
            try:
                self._lane.host.decode(target.view(picture.dtype).reshape(picture.shape), file.data, picture)
                decoded.append(each.row)
            except ServiceError as error:
                request.fault = error
        for row in decoded:
            self._stream.copy_h2d(slot.device_inputs[self.index], host, row_bytes, row * row_bytes, row * row_bytes)


def _source(picture: DevicePicture, frame: FrameBuffer) -> PictureSource:
    if isinstance(picture, FilePicture):
        return JpegFile(frame.host, picture.offset, picture.nbytes, picture.size)
    return picture

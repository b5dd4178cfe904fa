"""Video that a device decodes, resizes and converts: a picture comes back as the model's input (ADR 0215).

Theory of operation
    The decoder gives planes in device memory, complete, at once after their unit, also with B-frames: nothing is held
    back. A picture that is wanted is written as a row by the same kernel as JPEG files, and copied to the host: a
    request then has a row in its frame buffer, as any other. So front-end processes decode for their own streams, and
    only rows go to the engine process.

    An error of a unit is the unit's. After some in a row the decoder itself is doubted: the next keyframe gets another
    decoder (`takes`), and so it is after an error of the device.

Owner: one thread at a time, the worker that has the stream's turn.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from forebay_server.engines.device import Device, DeviceStream
from forebay_server.engines.errors import EngineError, ExecutionError
from forebay_server.engines.pictures import Nv12Planes, PictureLimits
from forebay_server.engines.video import DeviceVideoDecoder, VideoPlanes
from forebay_server.service.errors import BatchFailedError
from forebay_server.service.frontend.frames.decode.image_size import check_size
from forebay_server.service.frontend.frames.video.codec import DamagedUnitError, Pictures
from forebay_server.service.frontend.frames.video.parameter_sets import Sequence
from forebay_server.service.frontend.frames.video.planes import shares_of
from forebay_server.service.pictures.on_device import form_of, row_of
from forebay_server.service.pictures.picture_input import PictureInput

log = structlog.get_logger(__name__)

MOST_ERRORS = 8
"""Units in a row that a decoder refuses before another one is tried."""


def is_for_devices(sequence: Sequence) -> bool:
    """Whether pictures are of the kind that every GPU decodes: 8 bits, 4:2:0, no fields."""
    is_usual = 2 * sequence.picture_bytes == 3 * sequence.width * sequence.height
    return is_usual and not sequence.has_fields


class DeviceCodec:
    """See the module, and `codec.VideoCodec`.

    Args:
        device: of the decoder; the calling thread is attached to it.
        decoder: of the device; its owner takes it back in `on_close`.
        model: the picture that rows are made of.
        sequence: of the stream.
        sets: parameter sets in Annex B form that come before the first unit; may be empty.

    Attributes:
        on_close: called once at the end, with whether the decoder is sound.
        is_joining: no picture has come since the start or since `drain`.
        reorder_frames: 0.

    Raises:
        BackendUnavailableError, DeviceMemoryError: the decoder is the caller's still.
    """

    reorder_frames = 0

    def __init__(
        self, device: Device, decoder: DeviceVideoDecoder, model: PictureInput, sequence: Sequence, sets: bytes
    ) -> None:
        self._device = device
        self._decoder = decoder
        self._model = model
        self._sequence = sequence
        self._sets = sets
        self._errors = 0
        self._is_closed = False
        self.is_joining = True
        self.on_close: Callable[[bool], None] = lambda _: decoder.close()
        self._rows = _Rows(device, decoder.device_stream, model)

    def takes(self, sequence: Sequence) -> bool:
        """Whether the pictures are as at the start, and the decoder is not in doubt."""
        return sequence == self._sequence and self._errors < MOST_ERRORS

    def decode(self, data: bytes, number: int) -> Pictures:
        """Decode a unit and return its picture. Raises DamagedUnitError, also if there is none of the first unit."""
        try:
            self._device.attach_thread()
            found = self._decoder.decode(self._sets + data)
        except ExecutionError as error:
            self._errors += 1
            raise DamagedUnitError from error
        except EngineError as error:
            self._errors = MOST_ERRORS
            raise DamagedUnitError from error
        if self.is_joining and not found:
            self._errors += 1
            raise DamagedUnitError
        self._errors, self.is_joining, self._sets = 0, False, b""
        return [_DevicePicture(number, planes, self) for planes in found]

    def drain(self) -> Pictures:
        """Nothing is held back."""
        self.is_joining = True
        return ()

    def close(self) -> None:
        """Free everything. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            self._device.attach_thread()
            self._rows.close()
            self._decoder.reset()
        except Exception:  # any error: the decoder is in doubt, and the stream ends all the same
            log.exception("a decoder of video was not left in order")
            self._errors = MOST_ERRORS
        self.on_close(self._errors < MOST_ERRORS)

    def place(self, target: NDArray[Any], planes: Nv12Planes, model: PictureInput) -> None:
        """Write planes as the model takes them. Raises BatchFailedError: the device failed."""
        try:
            if model == self._model:
                self._rows.write(target, planes)
                return
            rows = _Rows(self._device, self._decoder.device_stream, model)  # for a reader of the operator's page
            try:
                rows.write(target, planes)
            finally:
                rows.close()
        except EngineError as error:
            self._errors = MOST_ERRORS
            raise BatchFailedError("the server could not convert the frame's picture") from error


@dataclass(frozen=True, slots=True, eq=False)
class _DevicePicture:
    """A picture in device memory, until the decoder's next unit."""

    number: int
    planes: VideoPlanes
    codec: DeviceCodec

    @property
    def size(self) -> tuple[int, int]:
        return self.planes.size

    @property
    def is_damaged(self) -> bool:
        return self.planes.is_damaged

    def place(self, target: NDArray[Any], model: PictureInput, most: int) -> tuple[int, int]:
        found = self.planes
        check_size("video", found.size, most)
        shares = shares_of(found.matrix, found.size[1])
        planes = Nv12Planes(
            found.buffer,
            found.luma_offset,
            found.chroma_offset,
            found.pitch,
            found.size,
            shares,
            found.is_full_range,
        )
        self.codec.place(target, planes, model)
        return found.size


class _Rows:
    """Makes one row at a time of planes, and brings it to the host."""

    def __init__(self, device: Device, device_stream: DeviceStream, model: PictureInput) -> None:
        self._model = model
        self._stream = device_stream
        with ExitStack() as undo:
            self._host = device.alloc_host(model.nbytes)
            undo.callback(self._host.close)
            self._row = device.alloc_device(model.nbytes)
            undo.callback(self._row.close)
            self._writer = device.open_pictures(
                form_of(model), PictureLimits(rows=1, slots=1, file_pixels=0), self._stream
            )
            undo.callback(self._writer.close)
            undo.callback(self._stream.sync)
            self._undo = undo.pop_all()

    def write(self, target: NDArray[Any], planes: Nv12Planes) -> None:
        self._writer.write([row_of(self._model, planes, 0)], self._row, 0)
        self._stream.copy_d2h(self._host, self._row, self._model.nbytes)
        self._stream.sync()
        target.reshape(-1).view(np.uint8)[:] = self._host.read_view()

    def close(self) -> None:
        self._undo.close()

"""Video that a device decodes, resizes and converts: a picture comes back as the model's input (ADR 0215).

Theory of operation
    A unit is handed in, and its picture is waited for when it is looked at: planes in device memory, also with
    B-frames, of which nothing is held back. A picture that is wanted is written as a row by the same kernel as JPEG
    files, and copied to the host, which `settle` waits for: a request then has a row in its frame buffer, as any other.
    So front-end processes decode for their own streams, and only rows go to the engine process.

    An error of a unit is the unit's. After some in a row the decoder itself is doubted: the next keyframe gets another
    decoder (`takes`), and so it is after an error of the device. The first picture is waited for at once: the stream
    may be of a kind that this device does not decode.

Owner: one thread at a time, the worker that has the stream's turn.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TypeVar

import numpy as np
import structlog
from numpy.typing import NDArray

from forebay_server.engines.device import Device, DeviceStream
from forebay_server.engines.errors import EngineError, ExecutionError
from forebay_server.engines.pictures import Nv12Planes, PictureLimits
from forebay_server.engines.video import DeviceVideoDecoder, VideoPlanes
from forebay_server.service.errors import BatchFailedError, InvariantError
from forebay_server.service.frontend.frames.decode.image_size import check_size
from forebay_server.service.frontend.frames.video.codec import DamagedUnitError, Pictures
from forebay_server.service.frontend.frames.video.parameter_sets import Sequence
from forebay_server.service.frontend.frames.video.planes import shares_of
from forebay_server.service.pictures.on_device import form_of, row_of
from forebay_server.service.pictures.picture_input import PictureInput

T = TypeVar("T")
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
        is_elsewhere: True.
        reorder_frames: 0.

    Raises:
        BackendUnavailableError, DeviceMemoryError: the decoder is the caller's still.
    """

    is_elsewhere = True
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
        self._target: NDArray[Any] | None = None  # of the picture that is being placed
        self._is_closed = False
        self.is_joining = True
        self.on_close: Callable[[bool], None] = lambda _: decoder.close()
        self._rows = _Rows(device, decoder.device_stream, model)

    def takes(self, sequence: Sequence) -> bool:
        """Whether the pictures are as at the start, and the decoder is not in doubt."""
        return sequence == self._sequence and self._errors < MOST_ERRORS

    def decode(self, data: bytes, number: int) -> Pictures:
        """Hand a unit in and return its picture. Raises DamagedUnitError, also if there is none of the first unit."""
        has_picture = self._asked(lambda: self._decoder.submit(self._sets + data))
        picture = _DevicePicture(number, self) if has_picture else None
        if self.is_joining:
            if picture is None:
                self._errors += 1
            if picture is None or picture.planes is None:
                raise DamagedUnitError
        self.is_joining, self._sets = False, b""
        return [] if picture is None else [picture]

    def planes(self) -> VideoPlanes:
        """Return the picture of the unit that was handed in last. Raises DamagedUnitError."""
        found = self._asked(self._decoder.picture)
        self._errors = 0
        return found

    def _asked(self, ask: Callable[[], T]) -> T:
        """Return the decoder's answer. Raises DamagedUnitError, and counts it."""
        try:
            self._device.attach_thread()
            return ask()
        except ExecutionError as error:
            self._errors += 1
            raise DamagedUnitError from error
        except EngineError as error:
            self._errors = MOST_ERRORS
            raise DamagedUnitError from error

    def settle(self) -> None:
        """Wait until the picture that was placed is in its target. Raises BatchFailedError: the device failed."""
        target, self._target = self._target, None
        if target is not None:
            with self._device_at_work():
                self._rows.read(target)

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
        """Write planes as the model takes them, until `settle`. Raises BatchFailedError: the device failed."""
        with self._device_at_work():
            if model == self._model:
                self._rows.enqueue(planes)
                self._target = target
                return
            rows = _Rows(self._device, self._decoder.device_stream, model)  # for a reader of the operator's page
            try:
                rows.enqueue(planes)
                rows.read(target)
            finally:
                rows.close()

    @contextmanager
    def _device_at_work(self) -> Iterator[None]:
        try:
            self._device.attach_thread()  # between two steps the thread may have worked for another device
            yield
        except EngineError as error:
            self._errors = MOST_ERRORS
            raise BatchFailedError("the server could not convert the frame's picture") from error


class _DevicePicture:
    """A picture in device memory, until the decoder's next unit. It is waited for when it is first looked at."""

    __slots__ = ("_codec", "_is_awaited", "_planes", "number")

    def __init__(self, number: int, codec: DeviceCodec) -> None:
        self.number = number
        self._codec = codec
        self._is_awaited = True
        self._planes: VideoPlanes | None = None

    @property
    def planes(self) -> VideoPlanes | None:
        """Return where it lies; None: it cannot be had."""
        if self._is_awaited:
            self._is_awaited = False
            with suppress(DamagedUnitError):
                self._planes = self._codec.planes()
        return self._planes

    @property
    def size(self) -> tuple[int, int]:
        return self._found().size

    @property
    def is_damaged(self) -> bool:
        planes = self.planes
        return planes is None or planes.is_damaged

    def _found(self) -> VideoPlanes:
        planes = self.planes
        if planes is None:
            raise InvariantError("a picture that cannot be had is damaged")
        return planes

    def place(self, target: NDArray[Any], model: PictureInput, most: int) -> tuple[int, int]:
        found = self._found()
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
        self._codec.place(target, planes, model)
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

    def enqueue(self, planes: Nv12Planes) -> None:
        self._writer.write([row_of(self._model, planes, 0)], self._row, 0)
        self._stream.copy_d2h(self._host, self._row, self._model.nbytes)

    def read(self, target: NDArray[Any]) -> None:
        self._stream.sync()
        target.reshape(-1).view(np.uint8)[:] = self._host.read_view()

    def close(self) -> None:
        self._undo.close()

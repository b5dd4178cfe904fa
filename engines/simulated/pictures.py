"""Pictures on the simulated device: the order of every access is checked, and pixels are those of the real kernel.

Stricter than a GPU: a slot's call before its last one is known to be done is a race, as is a file or a plane that is
written before its picture is.

Thread: one at a time, that of the device stream.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from forebay_server.engines.device import DeviceBuffer
from forebay_server.engines.errors import MisuseError
from forebay_server.engines.host_memory import check_range
from forebay_server.engines.pictures import (
    JpegFile,
    Nv12Planes,
    PictureForm,
    PictureLimits,
    PictureRow,
    PictureWriter,
)
from forebay_server.engines.simulated.handles import ByteRange, SimulatedDeviceBuffer
from forebay_server.engines.simulated.sampling import converted, picture_of
from forebay_server.engines.simulated.stream import SimulatedStream

if TYPE_CHECKING:
    from forebay_server.engines.device_simulated import SimulatedDevice

Pixels = NDArray[np.uint8]
DecodeFile = Callable[[bytes], Pixels | None]
"""A file to its pixels, shape (height, width, 3), red first; None for one that the device refuses."""
RECORD_BYTES = 112  # of a picture, as the kernel's
PIECE_BYTES = 1 << 20  # of a file, that goes to the device at once


@dataclass(frozen=True, slots=True)
class FileDecoding:
    """How a simulated device decodes files.

    Attributes:
        decode: does it.
        call_ns: device time of a call.
        file_ns: device time of each of its files.
    """

    decode: DecodeFile
    call_ns: int = 0
    file_ns: int = 0


class SimulatedPictureWriter:
    """See the module, and `engines.pictures.PictureWriter`."""

    def __init__(
        self,
        device: "SimulatedDevice",
        form: PictureForm,
        limits: PictureLimits,
        stream: SimulatedStream,
        files: FileDecoding | None,
    ) -> None:
        self._device = device
        self._form = form
        self._limits = limits
        self._stream = stream
        self._decoding = files
        nbytes = limits.rows * RECORD_BYTES
        with ExitStack() as undo:
            keep = undo.enter_context
            self._host_records = [keep(closing(device.alloc_host(nbytes))) for _ in range(limits.slots)]
            self._records = [keep(closing(device.alloc_device(nbytes))) for _ in range(limits.slots)]
            self._staging = keep(closing(device.alloc_device(limits.rows * 3 * limits.file_pixels)))
            self._file = keep(closing(device.alloc_device(PIECE_BYTES)))
            self._undo = undo.pop_all()

    def write(self, pictures: Sequence[PictureRow], target: DeviceBuffer, slot: int) -> Sequence[PictureRow]:
        """Enqueue the pictures of one slot."""
        if len(pictures) > self._limits.rows or len({each.row for each in pictures}) < len(pictures):
            raise MisuseError(f"{len(pictures)} pictures, of rows that are not all different or too many")
        decoded = self._decode_all(pictures)
        accepted = [each for each in pictures if isinstance(each.source, Nv12Planes) or each.row in decoded]
        if not accepted:
            return pictures
        host = self._host_records[slot]
        host.write_view()[:] = slot  # the earlier call of this slot has to be known to be done
        self._stream.copy_h2d(self._records[slot], host, len(accepted) * RECORD_BYTES)
        own = self._device.own(target)
        if not isinstance(own, SimulatedDeviceBuffer):
            raise MisuseError("pictures go to device memory")
        self._upload_files([each for each in accepted if each.row in decoded], decoded)
        for picture in accepted:
            self._place(picture, decoded.get(picture.row), own, slot)
        return [each for each in pictures if each not in accepted]

    def close(self) -> None:
        """Free everything."""
        self._undo.close()

    def _decode_all(self, pictures: Sequence[PictureRow]) -> dict[int, Pixels]:
        """Return the pixels of the files that are accepted, by row."""
        decoded: dict[int, Pixels] = {}
        for picture in pictures:
            source = picture.source
            if not isinstance(source, JpegFile):
                continue
            width, height = source.size
            if self._decoding is None or width * height > self._limits.file_pixels:
                continue
            pixels = self._decoding.decode(source.host.read_view()[source.offset :][: source.nbytes].tobytes())
            if pixels is not None:
                if pixels.shape != (height, width, 3):
                    raise MisuseError(f"a file of {width}x{height} has pixels of shape {pixels.shape}")
                decoded[picture.row] = pixels
        return decoded

    def _upload_files(self, pictures: Sequence[PictureRow], decoded: dict[int, Pixels]) -> None:
        """Read every file from host memory, on the device's time, and put its pixels into the staging buffer."""
        end = 0
        for picture in pictures:
            source, pixels = picture.source, decoded[picture.row]
            if isinstance(source, JpegFile):
                for start in range(0, source.nbytes, PIECE_BYTES):
                    nbytes = min(PIECE_BYTES, source.nbytes - start)
                    self._stream.copy_h2d(self._file, source.host, nbytes, 0, source.offset + start)
                run = partial(self._put, end, pixels)
                part = ByteRange(self._staging, end, pixels.nbytes)
                cost_ns = self._cost_ns(is_first=end == 0)
                self._stream.execute(reads=[self._file], writes=[part], cost_ns=cost_ns, run=run, label="decode")
                end += pixels.nbytes

    def _cost_ns(self, *, is_first: bool) -> int:
        files = self._decoding
        return 0 if files is None else files.file_ns + (files.call_ns if is_first else 0)

    def _put(self, start: int, pixels: Pixels) -> None:
        self._staging.memory[start : start + pixels.nbytes] = pixels.reshape(-1)

    def _place(self, picture: PictureRow, pixels: Pixels | None, target: SimulatedDeviceBuffer, slot: int) -> None:
        source, row_bytes = picture.source, self._form.row_bytes
        part = ByteRange(target, picture.row * row_bytes, row_bytes)
        reads: list[SimulatedDeviceBuffer | ByteRange] = [self._records[slot]]
        if isinstance(source, Nv12Planes):
            if source.ready is not None:
                self._stream.wait(source.ready)
            planes = self._device.own(source.buffer)
            if not isinstance(planes, SimulatedDeviceBuffer):
                raise MisuseError("planes lie in device memory")
            reads += _ranges(source, planes)
        else:
            reads.append(self._staging)

        def run() -> None:
            row, colours = (picture, pixels)
            if isinstance(source, Nv12Planes):
                row, colours = converted(picture, source, *_planes(source, planes.memory))
            assert colours is not None  # noqa: S101 - for mypy: files that are placed were decoded
            made = picture_of(row, self._form, colours)
            target.memory[part.offset : part.offset + row_bytes] = made.view(np.uint8).reshape(-1)

        self._stream.execute(reads=reads, writes=[part], run=run, label="place")


def _ranges(source: Nv12Planes, planes: SimulatedDeviceBuffer) -> list[ByteRange]:
    """Return the bytes of both planes. Raises MisuseError if they are not in their buffer."""
    height = source.size[1]
    luma, chroma = source.pitch * height, source.pitch * ((height + 1) // 2)
    check_range("luma", planes.nbytes, source.luma_offset, luma)
    check_range("chroma", planes.nbytes, source.chroma_offset, chroma)
    return [ByteRange(planes, source.luma_offset, luma), ByteRange(planes, source.chroma_offset, chroma)]


def _planes(source: Nv12Planes, memory: Pixels) -> tuple[Pixels, Pixels]:
    width, height = source.size
    half_width, half_height = (width + 1) // 2, (height + 1) // 2
    luma = memory[source.luma_offset :][: source.pitch * height].reshape(height, source.pitch)[:, :width]
    chroma = memory[source.chroma_offset :][: source.pitch * half_height].reshape(half_height, source.pitch)
    return luma, chroma[:, : 2 * half_width].reshape(half_height, half_width, 2)


def _conforms(writer: SimulatedPictureWriter) -> PictureWriter:
    return writer

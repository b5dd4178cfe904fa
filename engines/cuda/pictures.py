"""Pictures on an NVIDIA GPU: files by the JPEG engines, then one kernel for everything else (engines.pictures).

Theory of operation
    A call's files are decoded into a staging buffer of the writer, and the kernel reads it from there: both run on the
    one device stream, in order, so that the next round may use the same memory. A round is at most ROUND_FILES files,
    and no more than fit into the buffer. Rounds use the decoder's states by turns: with two the device always has work,
    and the host waits only for the last but one.

    The records of a call's pictures, which the kernel reads, go to the device in one copy, from pinned memory of the
    slot.

Thread: one at a time, that of the device stream.
"""

import functools
from collections.abc import Sequence
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import numpy as np

from forebay_server.engines.cuda import picture_kernel as kernel
from forebay_server.engines.cuda.handles import CudaStream
from forebay_server.engines.cuda.kernels import Kernel, compiled
from forebay_server.engines.cuda.nvjpeg import FileToDecode, NvJpegDecoder
from forebay_server.engines.device import DeviceBuffer
from forebay_server.engines.errors import (
    BackendUnavailableError,
    DeviceLostError,
    DeviceMemoryError,
    EngineError,
    MisuseError,
)
from forebay_server.engines.extras import install_hint
from forebay_server.engines.pictures import (
    JpegFile,
    Nv12Planes,
    PictureForm,
    PictureLimits,
    PictureRow,
    PictureSupport,
    PictureWriter,
)

if TYPE_CHECKING:
    from forebay_server.engines.device_cuda import CudaDevice

STAGING_BYTES = 96 << 20
"""For decoded pixels, if the largest file takes no more: 32 of 1280x720, or 15 of 1920x1080."""
ROUND_FILES = 16
"""The engines of an H200 decode 13,200 files of 640x480 a second in batches of 16, 15,900 in batches of 32; the memory
of a state grows with the batch."""
STATES = 2
_ALIGNMENT_BYTES = 256  # of a picture's pixels, as memory that cudaMalloc gives


def support_of(capability: tuple[int, int], index: int) -> PictureSupport:
    """Return the pictures that the current device takes. Blocks: half a second the first time."""
    try:
        return _lasting_support_of(capability, index)
    except DeviceMemoryError as error:  # not kept: the next model may find memory
        return PictureSupport(planes=True, files=False, reason=str(error))


@functools.cache
def _lasting_support_of(capability: tuple[int, int], index: int) -> PictureSupport:  # noqa: ARG001 - one for each GPU
    """As `support_of`. Raises DeviceMemoryError where that cannot be found out now."""
    try:
        compiled(kernel.SOURCE, kernel.NAME, capability)
    except BackendUnavailableError as error:
        return PictureSupport(planes=False, files=False, reason=f"{error}: {install_hint('gpu-decode')}")
    try:
        NvJpegDecoder(0, 0, 0).close()
    except BackendUnavailableError as error:
        return PictureSupport(planes=True, files=False, reason=f"{error}: {install_hint('gpu-decode')}")
    return PictureSupport(planes=True, files=True)


class CudaPictureWriter:
    """See the module, and `engines.pictures.PictureWriter`.

    Args:
        device: the thread that makes it is attached to it.
        form: of the model's picture.
        limits: sizes of the memory that is allocated.
        device_stream: everything is enqueued there.

    Raises:
        BackendUnavailableError, DeviceMemoryError.
    """

    def __init__(
        self, device: "CudaDevice", form: PictureForm, limits: PictureLimits, device_stream: CudaStream
    ) -> None:
        self._form = form
        self._limits = limits
        self._stream = device_stream
        self._device = device
        self._turn = 0
        self._staging_bytes = max(STAGING_BYTES, 3 * limits.file_pixels + _ALIGNMENT_BYTES) if limits.file_pixels else 0
        records_bytes = limits.rows * kernel.PICTURE.itemsize
        with ExitStack() as undo:
            table = device.alloc_device(form.table.nbytes)
            undo.callback(table.close)
            self._staging = device.alloc_device(self._staging_bytes)
            undo.callback(self._staging.close)
            keep = undo.enter_context  # one by one: memory may run out in between
            self._records = [keep(closing(device.alloc_device(records_bytes))) for _ in range(limits.slots)]
            self._host_records = [keep(closing(device.alloc_host(records_bytes))) for _ in range(limits.slots)]
            self._round_files = min(limits.rows, ROUND_FILES)
            self._decoded = [device.create_event() for _ in range(STATES)]
            for event in self._decoded:
                undo.callback(event.close)
            files, pixels = self._round_files, limits.file_pixels
            self._decoder = NvJpegDecoder(STATES, files, pixels) if pixels else None
            if self._decoder is not None:
                undo.callback(self._decoder.close)
            self._kernel = Kernel(kernel.SOURCE, kernel.NAME, device.describe().compute_capability or (0, 0))
            undo.callback(self._kernel.close)
            self._form_record = kernel.form_record(form, table.address)
            self._upload(table, form)
            self._undo = undo.pop_all()

    def write(self, pictures: Sequence[PictureRow], target: DeviceBuffer, slot: int) -> Sequence[PictureRow]:
        """Enqueue the pictures of one slot."""
        planes = [picture for picture in pictures if isinstance(picture.source, Nv12Planes)]
        files, refused = self._sorted(pictures)
        rounds = self._rounds(files)
        self._fill(planes, rounds, self._device.own(target).address, slot)
        if planes:
            self._convert(slot, 0, len(planes))
        first = len(planes)
        for members in rounds:
            refused += self._decode(members, slot, first)
            first += len(members)
        return refused

    def close(self) -> None:
        """Free everything."""
        self._undo.close()

    def _sorted(self, pictures: Sequence[PictureRow]) -> tuple[list[PictureRow], list[PictureRow]]:
        """Return the files that the hardware decodes, and those that it does not."""
        files: list[PictureRow] = []
        refused: list[PictureRow] = []
        for picture in pictures:
            source = picture.source
            if isinstance(source, JpegFile):
                fits = source.size[0] * source.size[1] <= self._limits.file_pixels
                (files if fits and self._accepts(source) else refused).append(picture)
        return files, refused

    def _accepts(self, file: JpegFile) -> bool:
        return self._decoder is not None and self._decoder.accepts(self._address_of(file), file.nbytes)

    def _address_of(self, file: JpegFile) -> int:
        return self._device.own_host(file.host).address + file.offset

    def _rounds(self, files: Sequence[PictureRow]) -> list[list[tuple[PictureRow, int]]]:
        """Return the files of each round, each with the offset of its pixels in the staging buffer."""
        rounds: list[list[tuple[PictureRow, int]]] = []
        end = self._staging_bytes
        for picture in files:
            nbytes = _rounded(3 * picture.source.size[0] * picture.source.size[1])
            if end + nbytes > self._staging_bytes or len(rounds[-1]) == self._round_files:
                rounds.append([])
                end = 0
            rounds[-1].append((picture, end))
            end += nbytes
        return rounds

    def _fill(
        self,
        planes: Sequence[PictureRow],
        rounds: Sequence[Sequence[tuple[PictureRow, int]]],
        target: int,
        slot: int,
    ) -> None:
        """Write the pictures' records into the slot's memory, and enqueue its copy."""
        row_bytes, staging = self._form.row_bytes, self._staging.address
        records = []
        for picture in planes:
            source = picture.source
            if not isinstance(source, Nv12Planes):
                raise MisuseError("a file among planes")
            if source.ready is not None:
                self._stream.wait(source.ready)
            pixels = self._device.own(source.buffer).address
            records.append(kernel.picture_record(picture, pixels, target + picture.row * row_bytes))
        for members in rounds:
            for picture, offset in members:
                records.append(kernel.picture_record(picture, staging + offset, target + picture.row * row_bytes))
        if records:
            host = self._host_records[slot]
            host.write_view().view(kernel.PICTURE)[: len(records)] = records
            self._stream.copy_h2d(self._records[slot], host, len(records) * kernel.PICTURE.itemsize)

    def _decode(self, members: Sequence[tuple[PictureRow, int]], slot: int, first: int) -> list[PictureRow]:
        """Decode a round and convert it; return the files that could not be decoded."""
        decoder = self._decoder
        if decoder is None:
            raise MisuseError("files for a writer without a decoder")
        files = [self._to_decode(picture, offset) for picture, offset in members]
        try:
            self._decode_batch(decoder, files)
        except EngineError:
            self._device.raise_if_lost()
            return self._decode_each(decoder, members, slot, first)
        self._convert(slot, first, len(members))
        return []

    def _decode_each(
        self, decoder: NvJpegDecoder, members: Sequence[tuple[PictureRow, int]], slot: int, first: int
    ) -> list[PictureRow]:
        """Decode a round whose batch was refused, file by file."""
        refused = []
        for number, (picture, offset) in enumerate(members):
            try:
                self._decode_batch(decoder, [self._to_decode(picture, offset)])
            except DeviceLostError:
                raise
            except EngineError:
                self._device.raise_if_lost()
                refused.append(picture)
            else:
                self._convert(slot, first + number, 1)
        return refused

    def _decode_batch(self, decoder: NvJpegDecoder, files: Sequence[FileToDecode]) -> None:
        """Enqueue a batch in the next state, whose last one has to be done. Raises ExecutionError."""
        number = self._turn = (self._turn + 1) % STATES
        event = self._decoded[number]
        if event.is_recorded:
            event.sync()
        try:
            decoder.decode(number, files, self._stream.handle)
        finally:
            self._stream.record(event)

    def _to_decode(self, picture: PictureRow, offset: int) -> FileToDecode:
        source = picture.source
        if not isinstance(source, JpegFile):
            raise MisuseError("planes among files")
        return FileToDecode(self._address_of(source), source.nbytes, self._staging.address + offset, 3 * source.size[0])

    def _convert(self, slot: int, first: int, count: int) -> None:
        """Enqueue the kernel for some of the slot's records."""
        address = self._records[slot].address + first * kernel.PICTURE.itemsize
        self._launch_address[0] = address
        width, height = kernel.BLOCK
        grid = (-(-self._form.width // width), -(-self._form.height // height), count)
        arguments = (self._launch_address.ctypes.data, self._form_record.ctypes.data)
        self._kernel.launch(grid, kernel.BLOCK, self._stream.handle, arguments)

    def _upload(self, table: DeviceBuffer, form: PictureForm) -> None:
        self._launch_address = np.zeros(1, np.uint64)
        host = self._device.alloc_host(form.table.nbytes)
        try:
            host.write_view()[:] = np.ascontiguousarray(form.table).view(np.uint8).reshape(-1)
            self._stream.copy_h2d(table, host, form.table.nbytes)
            self._stream.sync()
        finally:
            host.close()


def _rounded(nbytes: int) -> int:
    return -(-nbytes // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES


def _conforms(writer: CudaPictureWriter) -> PictureWriter:
    return writer

"""NVDEC: one decoder of H.264 or H.265, from access units to pictures in device memory.

Theory of operation
    Two objects of the library. The decoder has the surfaces and the engine; making one takes 40 ms, and 260 ms where
    other processes do the same, so it is kept for the streams that follow (`reset`). The parser is a stream's: it reads
    an access unit and calls back, in the same thread and within the call, `_on_sequence` where parameter sets are new,
    and `_on_picture` for the picture, which enqueues it. With END_OF_PICTURE the parser does not wait for the next unit
    to know that this one is whole. Then the picture is mapped: the library waits until it is decoded, and gives an
    address. It stays mapped until the next unit.

    The parser gives pictures in the order of decoding; without a display callback it holds back none.

    Decoders have pictures as they are coded; cropping is a matter of addresses.

Source: NVDECODE API of the Video Codec SDK. Long calls release the GIL. Thread: one at a time, attached to the device.
"""

import ctypes
from collections.abc import Callable
from ctypes import byref, c_uint, c_ulonglong, c_void_p
from typing import Any, NamedTuple

from forebay_server.engines.cuda import nvcuvid
from forebay_server.engines.errors import BackendUnavailableError, DeviceMemoryError, EngineError, ExecutionError

SPARE_SURFACES = 4
"""Beside the reference pictures: the picture itself, and more that the parser wants (`Format.least_surfaces`)."""


class Mapped(NamedTuple):
    """A decoded picture, mapped until the decoder's next unit.

    Attributes:
        address: of the picture as coded, luma and then chroma, in device memory.
        pitch: bytes from one line to the next.
        luma_offset: of the first sample that is shown.
        chroma_offset: of the first sample of chroma that is shown.
        size: (width, height) in pixels, cropped.
        matrix: matrix_coefficients of ITU-T H.273.
        is_full_range: whether luma is 0 to 255.
        is_damaged: the decoder has met an error in it.
    """

    address: int
    pitch: int
    luma_offset: int
    chroma_offset: int
    size: tuple[int, int]
    matrix: int
    is_full_range: bool
    is_damaged: bool


class _Shown(NamedTuple):
    """The facts of the present parameter sets."""

    left: int
    top: int
    size: tuple[int, int]
    matrix: int
    is_full_range: bool


class NvDecoder:
    """See the module. The current device decodes.

    Args:
        codec: of the streams.
        size: (width, height) of their pictures as coded.
        references: pictures that the streams keep at most.
        stream: cudaStream_t on which a picture is made ready.

    Raises:
        BackendUnavailableError: no library, or a GPU that does not decode 8 bits and 4:2:0 of this codec and size.
        DeviceMemoryError: there is no memory for it.
    """

    def __init__(self, codec: str, size: tuple[int, int], references: int, stream: int) -> None:
        self._library = nvcuvid.load()
        self._codec, self._coded, self._stream = nvcuvid.CODECS[codec], size, stream
        self._surface_count = references + SPARE_SURFACES
        _check_caps(self._library, codec, size)
        self._decoder, self._parser = c_void_p(), c_void_p()
        self._mapped: int | None = None
        self._surfaces: list[int] = []  # of the unit that is being parsed
        self._shown = _Shown(0, 0, (0, 0), 2, is_full_range=False)
        self._fault: EngineError | None = None  # of a callback, which cannot raise
        self._parameters = nvcuvid.ParserParameters(codec=self._codec, most_surfaces=self._surface_count)
        # Kept: the library calls them.
        self._callbacks = self._parameters.on_sequence, self._parameters.on_picture = (
            nvcuvid.OnSequence(self._guarded(self._on_sequence)),
            nvcuvid.OnPicture(self._guarded(self._on_picture)),
        )
        self._create()

    def submit(self, data: bytes) -> bool:
        """Enqueue the picture of an access unit, and return whether it has one. Raises ExecutionError."""
        self._unmap()
        self._surfaces.clear()
        self._fault = None
        library = self._library
        if not self._parser.value:
            created = library.cuvidCreateVideoParser(byref(self._parser), byref(self._parameters))
            _check(created, "cuvidCreateVideoParser")
        memory = ctypes.c_char_p(data)
        packet = nvcuvid.Packet(nvcuvid.END_OF_PICTURE, len(data), ctypes.cast(memory, c_void_p), 0)
        status = library.cuvidParseVideoData(self._parser, byref(packet))
        if self._fault is not None:
            raise self._fault
        _check(status, "cuvidParseVideoData")
        return bool(self._surfaces)

    def map_picture(self) -> Mapped:
        """Wait for the picture of the unit, of several the last one, and map it. Raises ExecutionError."""
        surface, library, address, pitch = self._surfaces[-1], self._library, c_ulonglong(), c_uint()
        process = nvcuvid.ProcessParameters(is_progressive=1, stream=self._stream)
        status = library.cuvidMapVideoFrame64(self._decoder, surface, byref(address), byref(pitch), byref(process))
        _check(status, "cuvidMapVideoFrame64")
        self._mapped = address.value
        found = nvcuvid.Status()
        _check(library.cuvidGetDecodeStatus(self._decoder, surface, byref(found)), "cuvidGetDecodeStatus")
        is_damaged = found.status in {nvcuvid.STATUS_ERROR, nvcuvid.STATUS_CONCEALED}
        left, top, size, matrix, is_full_range = self._shown
        chroma = pitch.value * (_even(self._coded[1]) + top // 2) + left
        luma = pitch.value * top + left
        return Mapped(address.value, pitch.value, luma, chroma, size, matrix, is_full_range, is_damaged)

    def reset(self) -> None:
        """Forget the stream: the next unit is the first one of another."""
        self._unmap()
        if self._parser.value:
            self._library.cuvidDestroyVideoParser(self._parser)
            self._parser = c_void_p()

    def close(self) -> None:
        """Free everything. Idempotent. Blocks: for 20 ms, and 60 where other processes do the same."""
        self.reset()
        if self._decoder.value:
            self._library.cuvidDestroyDecoder(self._decoder)
            self._decoder = c_void_p()

    def _create(self) -> None:
        width, height = self._coded
        info = nvcuvid.CreateInfo(
            width=width,
            height=height,
            surfaces=self._surface_count,
            codec=self._codec,
            chroma=nvcuvid.CHROMA_420,
            flags=nvcuvid.PREFER_ENGINES,
            most_width=width,
            most_height=height,
            display=nvcuvid.Rectangle(0, 0, width, height),
            target_width=_even(width),
            target_height=_even(height),
            output_surfaces=1,
        )
        _check(self._library.cuvidCreateDecoder(byref(self._decoder), byref(info)), "cuvidCreateDecoder")

    def _guarded(self, call: Callable[[Any], int]) -> Callable[[Any, Any], int]:
        """Return a callback that keeps an error for `submit` and tells the library of it."""

        def guarded(_: Any, record: Any) -> int:  # noqa: ANN401 - a pointer
            try:
                return call(record.contents)
            except EngineError as error:
                self._fault = error
                return 0

        return guarded

    def _on_sequence(self, form: nvcuvid.Format) -> int:
        """Take new parameter sets; return how many surfaces the parser may use."""
        is_usual = form.chroma == nvcuvid.CHROMA_420 and not form.luma_depth_minus_8 and not form.chroma_depth_minus_8
        if not is_usual or (form.coded_width, form.coded_height) != self._coded:
            raise ExecutionError("pictures of another kind or size than the decoder is for")
        if form.least_surfaces > self._surface_count:
            raise ExecutionError("pictures with more references than the decoder is for")
        size = form.right - form.left, form.bottom - form.top
        self._shown = _Shown(form.left, form.top, size, form.matrix, bool(form.signal & 8))
        return self._surface_count

    def _on_picture(self, parameters: nvcuvid.PictureParameters) -> int:
        """Enqueue a picture."""
        _check(self._library.cuvidDecodePicture(self._decoder, byref(parameters)), "cuvidDecodePicture")
        self._surfaces.append(parameters.surface)
        return 1

    def _unmap(self) -> None:
        if self._mapped is not None:
            self._library.cuvidUnmapVideoFrame64(self._decoder, self._mapped)
            self._mapped = None


def _even(length: int) -> int:
    return length + length % 2


def _check_caps(library: Any, codec: str, size: tuple[int, int]) -> None:  # noqa: ANN401 - a library
    caps = nvcuvid.Caps(codec=nvcuvid.CODECS[codec], chroma=nvcuvid.CHROMA_420)
    _check(library.cuvidGetDecoderCaps(byref(caps)), "cuvidGetDecoderCaps")
    width, height = size
    if not caps.is_supported:
        raise BackendUnavailableError(f"this GPU has no engine for {codec}")
    is_large = width > caps.most_width or height > caps.most_height or width * height > 256 * caps.most_macroblocks
    if is_large or width < caps.least_width or height < caps.least_height:
        raise BackendUnavailableError(f"this GPU's engine does not decode {codec} of {width}x{height}")


def _check(status: int, call: str) -> None:
    if status == nvcuvid.OUT_OF_MEMORY:
        raise DeviceMemoryError(f"{call}: no memory of the GPU; open fewer streams of video")
    if status:
        raise ExecutionError(f"{call}: CUresult {status}")

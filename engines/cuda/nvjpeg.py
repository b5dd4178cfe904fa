"""nvJPEG's hardware decoder: batches of JPEG files, from host memory to interleaved RGB in device memory.

Theory of operation
    GPUs of data centres have engines for JPEG beside their cores. A batch is one call that enqueues on a stream. The
    call keeps data in its *state* until the batch is done, with memory for the largest batch from the start: on an H200
    290 MiB for 16 files of 1920x1088. A file's header is parsed once more by the library before the batch, since one
    file that it refuses fails the whole call.

    nvImageCodec, which wraps these calls, decodes into images that it allocates itself, waits on the host for each
    batch, and writes warnings to standard error (docs/adr/0213).

Source: nvJPEG API of CUDA 12 and 13. Long calls release the GIL. Thread: one at a time, attached to the device.
"""

import ctypes
import math
from collections.abc import Sequence
from ctypes import POINTER, byref, c_int, c_size_t, c_uint, c_void_p
from typing import Any, NamedTuple

from forebay_server.engines.cuda.bound_library import bound
from forebay_server.engines.errors import BackendUnavailableError, DeviceMemoryError, ExecutionError

_HARDWARE = 3  # nvjpegBackend_t
_SMOOTH_CHROMA = 32  # NVJPEG_FLAGS_UPSAMPLING_WITH_INTERPOLATION, as libjpeg does
_RGB_INTERLEAVED = 5  # nvjpegOutputFormat_t
_CHROMA_444 = 0  # nvjpegChromaSubsampling_t: the largest
_SUCCESS, _ALLOCATOR_FAILURE = 0, 5  # nvjpegStatus_t
_STATUSES = {
    1: "not initialized",
    2: "invalid parameter",
    3: "bad JPEG",
    4: "JPEG not supported",
    5: "no memory",
    6: "execution failed",
    7: "this GPU has no JPEG engine",
    8: "internal error",
    9: "not supported here",
    10: "incomplete bitstream",
}
_COMPONENTS = 4

NO_LIBRARY = "libnvjpeg cannot be loaded"


class _Image(ctypes.Structure):
    _fields_ = (("channel", c_void_p * _COMPONENTS), ("pitch", c_size_t * _COMPONENTS))


class FileToDecode(NamedTuple):
    """Addresses and sizes of one file.

    Attributes:
        address: of the file in host memory.
        nbytes: of the file.
        target: address of its pixels in device memory.
        pitch: bytes from one line of pixels to the next.
    """

    address: int
    nbytes: int
    target: int
    pitch: int


def load() -> Any:  # noqa: ANN401 - a library
    """Return the library. Raises BackendUnavailableError where there is none."""
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib

        return bind(load_nvidia_dynamic_lib("nvjpeg").abs_path)
    except (ImportError, OSError, RuntimeError) as error:
        raise BackendUnavailableError(f"{NO_LIBRARY} ({str(error).splitlines()[0][:200]})") from error


def bind(path: str) -> Any:  # noqa: ANN401 - a library
    """Return the library at a path, with its functions declared. Raises OSError."""
    return bound(path, _FUNCTIONS, _QUICK)


_P = c_void_p
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "nvjpegCreateEx": (c_int, _P, _P, c_uint, POINTER(_P)),
    "nvjpegDestroy": (_P,),
    "nvjpegJpegStateCreate": (_P, POINTER(_P)),
    "nvjpegJpegStateDestroy": (_P,),
    "nvjpegJpegStreamCreate": (_P, POINTER(_P)),
    "nvjpegJpegStreamDestroy": (_P,),
    "nvjpegJpegStreamParseHeader": (_P, _P, c_size_t, _P),
    "nvjpegDecodeBatchedSupported": (_P, _P, POINTER(c_int)),
    "nvjpegDecodeBatchedInitialize": (_P, _P, c_int, c_int, c_int),
    "nvjpegDecodeBatchedPreAllocate": (_P, _P, c_int, c_int, c_int, c_int, c_int),
    "nvjpegDecodeBatched": (_P, _P, _P, _P, _P, _P),
}


_QUICK = frozenset(("nvjpegJpegStreamParseHeader", "nvjpegDecodeBatchedSupported"))
"""Calls of some microseconds keep the interpreter's lock: under load, to get it back takes longer than the call. With
128 cameras the uploads of 16 files took 3.9 ms while each call released the lock; alone they take 1.5."""


class NvJpegDecoder:
    """See the module. The current device decodes.

    Args:
        states: batches that may be under way at once; 0 to see only whether the GPU can decode.
        most_files: of one batch.
        most_pixels: of one file.

    Raises:
        BackendUnavailableError: no library, or a GPU without the hardware.
        DeviceMemoryError: the memory for the decoder, or for batches, cannot be had.
    """

    def __init__(self, states: int, most_files: int, most_pixels: int) -> None:
        self._library = library = load()
        self._handle, self._parsed = _P(), _P()
        self._states: list[c_void_p] = []
        status = library.nvjpegCreateEx(_HARDWARE, None, None, _SMOOTH_CHROMA, byref(self._handle))
        if status == _ALLOCATOR_FAILURE:
            raise DeviceMemoryError("nvjpegCreateEx: no memory for a decoder of JPEG files")
        if status != _SUCCESS:
            raise BackendUnavailableError(f"nvJPEG cannot use a JPEG engine of this GPU ({_said(status)})")
        try:
            self._check(library.nvjpegJpegStreamCreate(self._handle, byref(self._parsed)), "nvjpegJpegStreamCreate")
            for _ in range(states):
                self._states.append(self._new_state(most_files, most_pixels))
        except BaseException:
            self.close()
            raise

    def accepts(self, address: int, nbytes: int) -> bool:
        """Whether the hardware decodes a file. Its compressed data is not looked at."""
        library, is_refused = self._library, c_int(1)
        if library.nvjpegJpegStreamParseHeader(self._handle, address, nbytes, self._parsed) != _SUCCESS:
            return False
        if library.nvjpegDecodeBatchedSupported(self._handle, self._parsed, byref(is_refused)) != _SUCCESS:
            return False
        return is_refused.value == 0

    def decode(self, state: int, files: Sequence[FileToDecode], stream: int) -> None:
        """Enqueue a batch on a stream. Raises ExecutionError: one of the files cannot be decoded, or nothing can.

        Args:
            state: number of a state whose last batch is done.
            files: that `accepts` has accepted; read until the batch is done.
            stream: cudaStream_t.
        """
        library, count, of_batch = self._library, len(files), self._states[state]
        status = library.nvjpegDecodeBatchedInitialize(self._handle, of_batch, count, 1, _RGB_INTERLEAVED)
        self._check(status, "nvjpegDecodeBatchedInitialize")
        addresses = (_P * count)(*[file.address for file in files])
        lengths = (c_size_t * count)(*[file.nbytes for file in files])
        images = (_Image * count)()
        for image, file in zip(images, files, strict=True):
            image.channel[0], image.pitch[0] = file.target, file.pitch
        status = library.nvjpegDecodeBatched(self._handle, of_batch, addresses, lengths, images, stream)
        self._check(status, "nvjpegDecodeBatched")

    def close(self) -> None:
        """Free everything; no batch is under way. Idempotent."""
        library = self._library
        for state in self._states:
            library.nvjpegJpegStateDestroy(state)
        self._states.clear()
        if self._parsed.value:
            library.nvjpegJpegStreamDestroy(self._parsed)
            self._parsed = _P()
        if self._handle.value:
            library.nvjpegDestroy(self._handle)
            self._handle = _P()

    def _new_state(self, most_files: int, most_pixels: int) -> c_void_p:
        library, state = self._library, _P()
        self._check(library.nvjpegJpegStateCreate(self._handle, byref(state)), "nvjpegJpegStateCreate")
        width = math.ceil(math.sqrt(most_pixels * 16 / 9) / 16) * 16
        height = math.ceil(most_pixels / width / 16) * 16
        status = library.nvjpegDecodeBatchedPreAllocate(
            self._handle, state, most_files, width, height, _CHROMA_444, _RGB_INTERLEAVED
        )
        if status != _SUCCESS:
            library.nvjpegJpegStateDestroy(state)
        self._check(status, "nvjpegDecodeBatchedPreAllocate")
        return state

    @staticmethod
    def _check(status: int, call: str) -> None:
        if status == _ALLOCATOR_FAILURE:
            raise DeviceMemoryError(f"{call}: no memory; lower gpu_decode_pixels or max_batch_size")
        if status != _SUCCESS:
            raise ExecutionError(f"{call}: {_said(status)}")


def _said(status: int) -> str:
    return _STATUSES.get(status, f"status {status}")

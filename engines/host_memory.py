"""Plain host memory for the devices that use it: allocation, copies, and access for engines."""

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from forebay_server.engines.device import DeviceBuffer
from forebay_server.engines.errors import DeviceMemoryError, MisuseError

PAGE_BYTES = 4096
CACHE_LINE_BYTES = 64

GIL_HELD_COPY_BYTES = 256 * 1024
"""Copies up to this size keep the GIL: 150 KB take 10 to 30 us, less than releasing it and getting it back while other
threads run Python (docs/adr/0070). Larger ones release it."""


@runtime_checkable
class HostBacked(Protocol):
    """A device buffer whose memory the CPU can address."""

    @property
    def memory(self) -> NDArray[np.uint8]:
        """The memory itself, shape (nbytes,), without any check."""
        ...


def allocate(nbytes: int) -> NDArray[np.uint8]:
    """Return memory full of zeros, aligned to a page (or to a cache line if it is smaller than a page).

    It never contains memory that the process freed before. Large memory comes from the operating system, which gives
    zeros by itself: unused pages are not touched.
    """
    if nbytes < 0:
        raise MisuseError(f"cannot allocate {nbytes} bytes")
    alignment = PAGE_BYTES if nbytes >= PAGE_BYTES else CACHE_LINE_BYTES
    try:
        raw = np.zeros(nbytes + alignment, dtype=np.uint8)
    except MemoryError as error:
        raise DeviceMemoryError(f"no {nbytes} bytes of host memory left: use fewer permits or instances") from error
    start = -raw.ctypes.data % alignment
    return raw[start : start + nbytes]


def copy(dst: NDArray[np.uint8], src: NDArray[np.uint8]) -> None:
    """Copy `src` over `dst`, both of the same length."""
    if len(src) <= GIL_HELD_COPY_BYTES:
        dst.data[:] = src.data
    else:
        np.copyto(dst, src)


def check_range(what: str, capacity: int, offset: int, nbytes: int) -> None:
    """Raise MisuseError unless bytes `offset` .. `offset + nbytes` are within `capacity`."""
    if offset < 0 or nbytes < 0 or offset + nbytes > capacity:
        raise MisuseError(f"{what}: bytes {offset}..{offset + nbytes} of a buffer of {capacity}")


def memory_of(buffer: DeviceBuffer) -> NDArray[np.uint8]:
    """Return the memory of a device buffer that the CPU can address. Raises MisuseError for any other."""
    if not isinstance(buffer, HostBacked):
        raise MisuseError(f"{type(buffer).__name__} is not host memory")
    return buffer.memory

"""The frame arena: fixed host buffers, one per permit, that decoded frames lie in until they are uploaded.

Every model version has an arena laid out for its inputs; the server-wide number of permits bounds how many leases exist
at once. Leases are handed out last-in first-out, so that under light load few buffers are ever touched (memory is
committed on first use) and those stay warm in the cache.
"""

from collections import deque

from engines.device import Device, HostBuffer
from engines.engine import TensorSpec
from service.errors import OverloadedError

INPUT_ALIGNMENT_BYTES = 64  # a cache line, and enough for every vector load


class FrameArena:
    """Buffers for the inputs of one model version. Thread: any (deque operations are atomic)."""

    def __init__(self, device: Device, inputs: tuple[TensorSpec, ...], count: int) -> None:
        offsets: list[int] = []
        end = 0
        for spec in inputs:
            offsets.append(end)
            end += -(-spec.row_bytes // INPUT_ALIGNMENT_BYTES) * INPUT_ALIGNMENT_BYTES
        self.offsets = tuple(offsets)
        self.count = count
        self._buffers = [device.alloc_host(end) for _ in range(count)]
        self._free: deque[HostBuffer] = deque(self._buffers)

    @property
    def leased_count(self) -> int:
        """How many buffers are out."""
        return self.count - len(self._free)

    def lease(self) -> "FrameLease":
        """Take a buffer. Raises OverloadedError when all are out."""
        try:
            return FrameLease(self, self._free.pop())
        except IndexError:
            raise OverloadedError(
                "the server holds as many frames as it may; send fewer or slower", retry_after_ms=100
            ) from None

    def take_back(self, buffer: HostBuffer) -> None:
        """Accept a buffer from its lease."""
        self._free.append(buffer)

    def close(self) -> None:
        """Free the memory. Nothing is leased any more."""
        for buffer in self._buffers:
            buffer.close()


class FrameLease:
    """One leased buffer; see service.request.FrameBuffer. Held by one thread at a time."""

    __slots__ = ("_arena", "_is_released", "host")

    def __init__(self, arena: FrameArena, host: HostBuffer) -> None:
        self._arena = arena
        self._is_released = False
        self.host = host

    @property
    def offsets(self) -> tuple[int, ...]:
        """Byte offset of each input of the model."""
        return self._arena.offsets

    def release(self) -> None:
        """Give it back. Idempotent."""
        if not self._is_released:
            self._is_released = True
            self._arena.take_back(self.host)

"""Host buffers for requests of more than one row, beside the frame arena, whose buffers hold one row each.

How many rows a request will have is not known at start-up, and room for the largest one per permit would be permits x
max_batch_size rows. So these buffers are allocated when first needed, in capacities of powers of two, and kept for
reuse, newest first; their bytes together are bounded. A buffer that was used before costs 1.1 µs to lease,
against 0.4 for one row (docs/adr/0040-requests-of-several-rows.md); allocating one is the exception, once per capacity
and degree of concurrency.

Thread: any; a lock guards the books, and allocation happens under it.
"""

import threading
from dataclasses import dataclass

from forebay_server.engines.device import Device, HostBuffer
from forebay_server.engines.engine import TensorSpec
from forebay_server.engines.errors import DeviceMemoryError
from forebay_server.service.errors import InvalidRequestError, OverloadedError

DEFAULT_LIMIT_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class MultiRowBuffer:
    """One buffer: `capacity` rows of every input, each input at its offset."""

    host: HostBuffer
    capacity: int
    offsets: tuple[int, ...]
    nbytes: int


class MultiRowFrames:
    """See the module.

    Args:
        device: allocates.
        inputs: of the model, all of fixed size.
        alignment_bytes: every input starts at a multiple of it.
        limit_bytes: most that all buffers may hold together.
    """

    def __init__(self, device: Device, inputs: tuple[TensorSpec, ...], alignment_bytes: int, limit_bytes: int) -> None:
        self._device = device
        self._row_bytes = tuple(spec.row_bytes for spec in inputs)
        self._alignment_bytes = alignment_bytes
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._free: dict[int, list[MultiRowBuffer]] = {}
        self._held_bytes = 0
        self.leased_count = 0

    def take(self, rows: int) -> MultiRowBuffer:
        """Take a buffer of at least `rows` rows.

        Raises:
            OverloadedError: the others, or the machine, leave no room for it now.
            InvalidRequestError: there will never be room for it.
        """
        capacity = 1 << (rows - 1).bit_length()
        with self._lock:
            free = self._free.get(capacity)
            buffer = free.pop() if free else self._allocate(capacity)
            self.leased_count += 1
            return buffer

    def give_back(self, buffer: MultiRowBuffer) -> None:
        """Keep a buffer for the next request of its capacity."""
        with self._lock:
            self.leased_count -= 1
            self._free.setdefault(buffer.capacity, []).append(buffer)

    def close(self) -> None:
        """Free the memory. Nothing is leased any more."""
        with self._lock:
            for buffers in self._free.values():
                for buffer in buffers:
                    buffer.host.close()
            self._free.clear()

    def _allocate(self, capacity: int) -> MultiRowBuffer:
        offsets: list[int] = []
        nbytes = 0
        for row_bytes in self._row_bytes:
            offsets.append(nbytes)
            nbytes += -(-row_bytes * capacity // self._alignment_bytes) * self._alignment_bytes
        if nbytes > self._limit_bytes:
            raise InvalidRequestError(
                f"a request of so many rows takes {nbytes} bytes (for {capacity} rows), and all such requests together "
                f"may hold {self._limit_bytes}: split it"
            )
        while self._held_bytes + nbytes > self._limit_bytes:
            self._free_one()
        self._device.attach_thread()  # the front end's
        try:
            host = self._device.alloc_host(nbytes)
        except DeviceMemoryError as error:
            raise OverloadedError(
                "the machine has no memory for this request of several rows now; send fewer rows, or send it again",
                retry_after_ms=100,
            ) from error
        self._held_bytes += nbytes
        return MultiRowBuffer(host, capacity, tuple(offsets), nbytes)

    def _free_one(self) -> None:
        buffers = next((buffers for buffers in self._free.values() if buffers), None)
        if buffers is None:
            raise OverloadedError(
                f"requests of several rows hold all of the {self._limit_bytes} bytes that they may; send fewer at once",
                retry_after_ms=100,
            )
        buffer = buffers.pop(0)
        buffer.host.close()
        self._held_bytes -= buffer.nbytes

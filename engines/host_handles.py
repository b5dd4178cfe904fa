"""Buffers, events and device streams of the CPU. A frame passes here several dozen times: each call checks at once."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from forebay_server.engines.device import DeviceBuffer, Event, HostBuffer, Piece
from forebay_server.engines.errors import MisuseError
from forebay_server.engines.host_memory import check_range, copy

if TYPE_CHECKING:
    from forebay_server.engines.device_host import HostDevice

NO_RECORD = "event used before it was recorded, or after close"


class _Handle:
    """An object of a device: it belongs to the device, and is open until it is closed."""

    def __init__(self, device: "HostDevice") -> None:
        self.device = device
        self.is_closed = False

    def close(self) -> None:
        """Free it. Idempotent."""
        self.is_closed = True


class HostMemoryBuffer(_Handle):
    """A host buffer and a device buffer in one, because there is only one memory.

    Attributes:
        nbytes: capacity in bytes; 0 after `close`.
        mirrored: the buffer whose first bytes this one is, if any.
    """

    def __init__(
        self, device: "HostDevice", memory: NDArray[np.uint8], mirrored: "HostMemoryBuffer | None" = None
    ) -> None:
        super().__init__(device)
        self.nbytes = len(memory)
        self.mirrored = mirrored
        self._memory = memory
        self._parts: list[HostMemoryBuffer] = []
        self._address: int | None = None  # computed once, because numpy takes a microsecond

    @property
    def memory(self) -> NDArray[np.uint8]:
        """The memory, shape (nbytes,)."""
        return self.write_view()

    @property
    def address(self) -> int:
        """Address of the first byte."""
        if self.is_closed:
            raise MisuseError("host buffer used after close")
        if self._address is None:
            self._address = int(self._memory.ctypes.data)
        return self._address

    def write_view(self) -> NDArray[np.uint8]:
        """Return the memory for the host to read and write. Raises MisuseError after `close`."""
        if self.is_closed:
            raise MisuseError("host buffer used after close")
        return self._memory

    read_view = write_view  # one memory, with no order to check

    def part(self, offset: int, nbytes: int) -> "HostMemoryBuffer":
        """Return some of the bytes as a buffer of their own."""
        check_range("part", self.nbytes, offset, nbytes)
        self._parts.append(HostMemoryBuffer(self.device, self.memory[offset : offset + nbytes]))
        return self._parts[-1]

    def close(self) -> None:
        """Release the memory. Views handed out before keep it alive. Idempotent."""
        super().close()
        for part in self._parts:
            part.close()
        self._memory = self._memory[:0]
        self.nbytes = 0


class HostEvent(_Handle):
    """A stamp of the clock.

    Attributes:
        recorded_ns: time of the latest record; None before the first one and after `close`.
    """

    def __init__(self, device: "HostDevice") -> None:
        super().__init__(device)
        self.recorded_ns: int | None = None

    @property
    def is_done(self) -> bool:
        """Whether it was recorded."""
        return self.recorded_ns is not None

    def sync(self) -> None:
        """Return at once: all enqueued work is done. Raises MisuseError if there is no record."""
        if self.recorded_ns is None:
            raise MisuseError(NO_RECORD)

    def elapsed_ns(self, earlier: Event) -> int:
        """Return the time from `earlier` to this event. Raises MisuseError if one of them has no record."""
        if not isinstance(earlier, HostEvent) or earlier.device is not self.device:
            raise foreign(earlier, self.device)
        if self.recorded_ns is None or earlier.recorded_ns is None:
            raise MisuseError(NO_RECORD)
        return self.recorded_ns - earlier.recorded_ns

    def close(self) -> None:
        """Forget the record. Idempotent."""
        super().close()
        self.recorded_ns = None


class HostStream(_Handle):
    """A device stream whose work is done when the enqueuing call returns."""

    def __init__(self, device: "HostDevice", name: str) -> None:
        super().__init__(device)
        self.name = name

    @property
    def handle(self) -> int:
        """0: there is no vendor's stream."""
        return 0

    def copy_h2d(
        self, dst: DeviceBuffer, src: HostBuffer, nbytes: int, dst_offset: int = 0, src_offset: int = 0
    ) -> None:
        """Copy; nothing to do where `dst` mirrors `src`."""
        self._copy(own_buffer(self.device, dst), own_host(self.device, src), nbytes, dst_offset, src_offset)

    def gather_h2d(self, dst: DeviceBuffer, pieces: Sequence[Piece]) -> None:
        """Copy each."""
        end = 0
        for src, offset, nbytes in pieces:
            self.copy_h2d(dst, src, nbytes, end, offset)
            end += nbytes

    def copy_d2h(self, dst: HostBuffer, src: DeviceBuffer, nbytes: int) -> None:
        """Copy; nothing to do where `src` mirrors `dst`."""
        self._copy(own_host(self.device, dst), own_buffer(self.device, src), nbytes, 0, 0)

    def _copy(
        self, target: HostMemoryBuffer, source: HostMemoryBuffer, nbytes: int, dst_offset: int, src_offset: int
    ) -> None:
        if self.is_closed:
            raise MisuseError(self._closed())
        if nbytes < 0 or not (0 <= dst_offset <= target.nbytes - nbytes and 0 <= src_offset <= source.nbytes - nbytes):
            places = f"from byte {src_offset} of {source.nbytes} to byte {dst_offset} of {target.nbytes}"
            raise MisuseError(f"copy of {nbytes} bytes {places}")
        is_mirror = target.mirrored is source or source.mirrored is target
        if not is_mirror or dst_offset != src_offset:
            copy(target.memory[dst_offset : dst_offset + nbytes], source.memory[src_offset : src_offset + nbytes])

    def record(self, event: Event) -> None:
        """Stamp `event`: all earlier work is done."""
        if not isinstance(event, HostEvent) or event.device is not self.device:
            raise foreign(event, self.device)
        if self.is_closed or event.is_closed:
            raise MisuseError(self._closed() if self.is_closed else "event recorded after close")
        event.recorded_ns = self.device.clock.now_ns()

    def wait(self, event: Event) -> None:
        """Return at once: a recorded event is done. Raises MisuseError if there is no record."""
        if not isinstance(event, HostEvent) or event.device is not self.device:
            raise foreign(event, self.device)
        if self.is_closed or event.recorded_ns is None:
            raise MisuseError(self._closed() if self.is_closed else NO_RECORD)

    def capture(self, enqueue: Callable[[], None]) -> None:
        """None: there are no graphs on the CPU."""

    def sync(self) -> None:
        """Return at once: no work is ever outstanding."""
        if self.is_closed:
            raise MisuseError(self._closed())

    def _closed(self) -> str:
        return f"device stream {self.name!r} used after close"


def own_buffer(device: "HostDevice", buffer: DeviceBuffer) -> HostMemoryBuffer:
    """Return a device buffer as this device's own. Raises MisuseError for another device's."""
    if isinstance(buffer, HostMemoryBuffer) and buffer.device is device:
        return buffer
    raise foreign(buffer, device)


def own_host(device: "HostDevice", buffer: HostBuffer) -> HostMemoryBuffer:
    """Return a host buffer of any CPU device. Raises MisuseError for another kind's."""
    if isinstance(buffer, HostMemoryBuffer):
        return buffer
    raise MisuseError(f"{type(buffer).__name__} is no host memory of {device.name}")


def foreign(thing: object, device: "HostDevice") -> MisuseError:
    """Return the error for the buffer or event of another device."""
    return MisuseError(f"{type(thing).__name__} belongs to another device than {device.name}")

"""The CPU as a device: one memory and synchronous device streams.

h2d and d2h buffers alias (`alloc_device(mirror=...)` is a view of the host buffer), an enqueued copy is done when the
call returns, `record` completes at once, and events are stamps of the injected clock. The pipeline takes the same path
as on CUDA. It checks no ordering: `device_simulated` does.

Thread: any; one thread at a time on a device stream. Memory is touched on first use only.
"""

import os
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from forebay_server.engines.clock import Clock
from forebay_server.engines.device import (
    Device,
    DeviceBuffer,
    DeviceDescription,
    DeviceKind,
    DeviceMemory,
    DeviceStream,
    Event,
    HostBuffer,
    Piece,
    StreamPriority,
)
from forebay_server.engines.errors import MisuseError
from forebay_server.engines.host_memory import allocate, check_range, copy

LOW_NICENESS = 10
"""Added to the niceness of threads of LOW priority: the kernel gives them a tenth of a core where others want all of
it. Beside two saturated instances of LOW priority the p99 of a model is 27 to 43 % shorter (docs/adr/0140)."""


class _Handle:
    """An object of a device: it belongs to the device, and is open until it is closed."""

    def __init__(self, device: "HostDevice") -> None:
        self.device = device
        self.is_closed = False

    def close(self) -> None:
        """Free it. Idempotent."""
        self.is_closed = True


class HostMemoryBuffer(_Handle):
    """A host buffer and a device buffer in one, because there is only one memory."""

    def __init__(
        self, device: "HostDevice", memory: NDArray[np.uint8], mirrored: "HostMemoryBuffer | None" = None
    ) -> None:
        super().__init__(device)
        self.mirrored = mirrored  # this buffer is the first bytes of that one
        self._memory = memory
        self._parts: list[HostMemoryBuffer] = []
        self._address: int | None = None  # computed once, because numpy takes a microsecond

    @property
    def nbytes(self) -> int:
        """Capacity in bytes."""
        return len(self._memory)

    @property
    def memory(self) -> NDArray[np.uint8]:
        """The memory, shape (nbytes,)."""
        if self.is_closed:
            raise MisuseError("host buffer used after close")
        return self._memory

    @property
    def address(self) -> int:
        """Address of the first byte."""
        if self.is_closed:
            raise MisuseError("host buffer used after close")
        if self._address is None:
            self._address = int(self._memory.ctypes.data)
        return self._address

    def write_view(self) -> NDArray[np.uint8]:
        """Return the memory for the host to write."""
        return self.memory

    def read_view(self) -> NDArray[np.uint8]:
        """Return the memory for the host to read."""
        return self.memory

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


class HostEvent(_Handle):
    """A stamp of the clock."""

    def __init__(self, device: "HostDevice") -> None:
        super().__init__(device)
        self.recorded_ns: int | None = None

    @property
    def is_done(self) -> bool:
        """Whether it was recorded."""
        return self.recorded_ns is not None

    def sync(self) -> None:
        """Return at once: all enqueued work is done. Raises MisuseError if never recorded."""
        self.stamp_ns()

    def elapsed_ns(self, earlier: Event) -> int:
        """Return the time from `earlier` to this event."""
        return self.stamp_ns() - self.device.own_event(earlier).stamp_ns()

    def stamp_ns(self) -> int:
        """Return the time of the record. Raises MisuseError if there is none, or after close."""
        if self.is_closed:
            raise MisuseError("event used after close")
        if self.recorded_ns is None:
            raise MisuseError("event used before it was recorded")
        return self.recorded_ns


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
        self._copy(self.device.own(dst), self.device.own_host(src), nbytes, dst_offset, src_offset)

    def gather_h2d(self, dst: DeviceBuffer, pieces: Sequence[Piece]) -> None:
        """Copy each."""
        end = 0
        for src, offset, nbytes in pieces:
            self.copy_h2d(dst, src, nbytes, end, offset)
            end += nbytes

    def copy_d2h(
        self, dst: HostBuffer, src: DeviceBuffer, nbytes: int, dst_offset: int = 0, src_offset: int = 0
    ) -> None:
        """Copy; nothing to do where `src` mirrors `dst`."""
        self._copy(self.device.own_host(dst), self.device.own(src), nbytes, dst_offset, src_offset)

    def _copy(
        self, target: HostMemoryBuffer, source: HostMemoryBuffer, nbytes: int, dst_offset: int, src_offset: int
    ) -> None:
        self._check_open()
        check_range("copy to", target.nbytes, dst_offset, nbytes)
        check_range("copy from", source.nbytes, src_offset, nbytes)
        is_mirror = target.mirrored is source or source.mirrored is target
        if not is_mirror or dst_offset != src_offset:
            copy(target.memory[dst_offset : dst_offset + nbytes], source.memory[src_offset : src_offset + nbytes])

    def record(self, event: Event) -> None:
        """Stamp `event`: all earlier work is done."""
        self._check_open()
        own = self.device.own_event(event)
        if own.is_closed:
            raise MisuseError("event recorded after close")
        own.recorded_ns = self.device.clock.now_ns()

    def wait(self, event: Event) -> None:
        """Return at once: a recorded event is done. Raises MisuseError if never recorded."""
        self._check_open()
        self.device.own_event(event).stamp_ns()

    def capture(self, enqueue: Callable[[], None]) -> None:
        """None: there are no graphs on the CPU."""

    def sync(self) -> None:
        """Return at once: no work is ever outstanding."""
        self._check_open()

    def _check_open(self) -> None:
        if self.is_closed:
            raise MisuseError(f"device stream {self.name!r} used after close")


class HostDevice:
    """The CPU and its memory."""

    def __init__(self, *, clock: Clock, index: int = 0) -> None:
        if index != 0:
            raise MisuseError(f"there is one cpu device, index 0, not {index}")
        self.clock = clock

    @property
    def name(self) -> str:
        """`cpu`."""
        return "cpu"

    @property
    def kind(self) -> DeviceKind:
        """CPU."""
        return DeviceKind.CPU

    @property
    def index(self) -> int:
        """0."""
        return 0

    @property
    def kind_count(self) -> int:
        """1."""
        return 1

    def describe(self) -> DeviceDescription:
        """Return its own name: no plan is built for a particular CPU."""
        return DeviceDescription(self.name)

    def raise_if_lost(self) -> None:
        """Do nothing: the process ends with its CPU."""

    @property
    def gather_below_bytes(self) -> int:
        """0: a gather would be the same copy."""
        return 0

    @property
    def is_synchronous(self) -> bool:
        """True."""
        return True

    def attach_thread(self) -> None:
        """Nothing to select."""

    def rank_thread(self, priority: StreamPriority) -> None:
        """Make a thread of LOW priority nicer than the process: on Linux, where threads have a niceness of their own.

        Where the system refuses it, the thread keeps its priority. HIGH is NORMAL here: it would need a privilege.
        """
        if priority is not StreamPriority.LOW or sys.platform != "linux":
            return
        with suppress(OSError):
            thread = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + LOW_NICENESS)

    def memory(self) -> DeviceMemory | None:
        """None: its memory is the machine's."""
        return None

    def alloc_host(self, nbytes: int) -> HostMemoryBuffer:
        """Allocate memory, touched on first use."""
        return HostMemoryBuffer(self, allocate(nbytes))

    def borrow_host(self, memory: memoryview) -> HostMemoryBuffer:
        """Return a buffer over `memory`: one host memory is as good as another."""
        return HostMemoryBuffer(self, np.frombuffer(memory, np.uint8))

    def register_host(self, memory: memoryview) -> HostMemoryBuffer:
        """Return a buffer over `memory`."""
        return HostMemoryBuffer(self, np.frombuffer(memory, np.uint8))

    def alloc_device(self, nbytes: int, mirror: HostBuffer | None = None) -> HostMemoryBuffer:
        """Allocate memory, or return a view of the first `nbytes` bytes of `mirror`."""
        if mirror is None:
            return HostMemoryBuffer(self, allocate(nbytes))
        own = self.own_host(mirror)
        check_range("mirror", own.nbytes, 0, nbytes)
        return HostMemoryBuffer(self, own.memory[:nbytes], mirrored=own)

    def create_stream(
        self,
        name: str,
        *,
        priority: StreamPriority = StreamPriority.NORMAL,  # noqa: ARG002 - no priorities here
    ) -> HostStream:
        """Create a synchronous device stream."""
        return HostStream(self, name)

    def create_event(self) -> HostEvent:
        """Create an event."""
        return HostEvent(self)

    def close(self) -> None:
        """The device has no resources of its own."""

    def own(self, buffer: DeviceBuffer) -> HostMemoryBuffer:
        """Return a device buffer as this device's own. Raises MisuseError for another device's."""
        if isinstance(buffer, HostMemoryBuffer) and buffer.device is self:
            return buffer
        raise MisuseError(f"{type(buffer).__name__} belongs to another device than {self.name}")

    def own_host(self, buffer: HostBuffer) -> HostMemoryBuffer:
        """Return a host buffer of any CPU device. Raises MisuseError for another kind's."""
        if isinstance(buffer, HostMemoryBuffer):
            return buffer
        raise MisuseError(f"{type(buffer).__name__} is no host memory of {self.name}")

    def own_event(self, event: Event) -> HostEvent:
        """Return `event` as this device's own. Raises MisuseError for another device's."""
        if isinstance(event, HostEvent) and event.device is self:
            return event
        raise MisuseError(f"{type(event).__name__} belongs to another device than {self.name}")


def _conforms(device: HostDevice, stream: HostStream) -> tuple[Device, DeviceStream]:
    return device, stream

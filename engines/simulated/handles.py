"""Buffers and events of the simulated device. Host and device memory are two memories here, as on CUDA."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forebay_server.engines.device import Event, HostBuffer
from forebay_server.engines.errors import EngineError, MisuseError
from forebay_server.engines.host_memory import allocate, check_range
from forebay_server.engines.simulated.access_log import AccessLog
from forebay_server.engines.simulated.core import Core, Handle, own
from forebay_server.engines.simulated.schedule import Point
from forebay_server.engines.simulated.vector_clock import VectorClock


class _Buffer(Handle):
    """Memory whose accesses are logged."""

    def __init__(self, core: Core, label: str, nbytes: int, memory: NDArray[np.uint8] | None = None) -> None:
        super().__init__(core, label)
        self._memory = allocate(nbytes) if memory is None else memory
        self.log = AccessLog()

    @property
    def nbytes(self) -> int:
        """Capacity in bytes."""
        return len(self._memory)

    @property
    def memory(self) -> NDArray[np.uint8]:
        """The memory, shape (nbytes,), unchecked: for the effect of an operation that declared its access."""
        return self._memory

    def close(self) -> None:
        """Free it, which counts as a write of the host: an operation that still uses it races. Idempotent."""
        with self.core.lock:
            if self.is_closed:
                return
            self.forget()
            if self.core.lost is None:
                self.core.host_access(self.log, self.nbytes, is_write=True, label=f"close of {self.label}")


class SimulatedHostBuffer(_Buffer):
    """Host memory; every request for a view is an access of the whole buffer by the host, so request it each time."""

    def __init__(self, core: Core, label: str, nbytes: int, memory: NDArray[np.uint8] | None = None) -> None:
        super().__init__(core, label, nbytes, memory)
        self._parts: list[SimulatedHostBuffer] = []

    def part(self, offset: int, nbytes: int) -> "SimulatedHostBuffer":
        """Return some of the bytes as a buffer of their own, with its own log of accesses."""
        check_range(self.label, self.nbytes, offset, nbytes)
        with self.core.lock:
            self.check_open()
            label = f"bytes {offset}..{offset + nbytes} of {self.label}"
            part = SimulatedHostBuffer(self.core, label, nbytes, self._memory[offset : offset + nbytes])
            self._parts.append(part)
            return part

    def close(self) -> None:
        """Close the parts and free it, which are writes of the host to each. Idempotent."""
        for part in self._parts:
            part.close()
        super().close()

    def write_view(self) -> NDArray[np.uint8]:
        """Return the memory for the host to write. Raises RaceError."""
        return self._view("write", is_write=True)

    def read_view(self) -> NDArray[np.uint8]:
        """Return the memory for the host to read. Raises RaceError."""
        return self._view("read", is_write=False)

    def _view(self, verb: str, *, is_write: bool) -> NDArray[np.uint8]:
        with self.core.lock:
            self.check_open()
            self.core.host_access(self.log, self.nbytes, is_write=is_write, label=f"{verb} of {self.label}")
        return self._memory


def own_host(core: Core, buffer: HostBuffer) -> SimulatedHostBuffer:
    """Return `buffer` if it is open host memory of this device's machine. Raises MisuseError otherwise."""
    if not isinstance(buffer, SimulatedHostBuffer) or buffer.core.machine is not core.machine:
        raise MisuseError(f"{type(buffer).__name__} belongs to another machine than this simulated device")
    buffer.check_open()
    return buffer


class SimulatedDeviceBuffer(_Buffer):
    """Device memory. The CPU can address it, but may only do so in an operation of a device stream."""

    def __init__(self, core: Core, label: str, nbytes: int) -> None:
        super().__init__(core, label, nbytes)
        core.device_bytes += nbytes

    def forget(self) -> None:
        """Mark as closed. With the lock held."""
        super().forget()
        self.core.device_bytes -= self.nbytes

    @property
    def address(self) -> int:
        """Address of the first byte."""
        self.check_open()
        return int(self._memory.ctypes.data)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes `offset` .. `offset + nbytes` of a device buffer, read or written by an execution."""

    buffer: SimulatedDeviceBuffer
    offset: int
    nbytes: int

    def __post_init__(self) -> None:
        """Refuse bytes outside the buffer."""
        check_range(self.buffer.label, self.buffer.nbytes, self.offset, self.nbytes)


@dataclass(frozen=True, slots=True)
class Recorded:
    """The state of an event: the point, the clock there, and an error of the earlier work."""

    point: Point
    known: VectorClock
    error: EngineError | None


class SimulatedEvent(Handle):
    """A point in a device stream, with its stream's clock at that point."""

    def __init__(self, core: Core) -> None:
        super().__init__(core, "event")
        self.recorded: Recorded | None = None

    @property
    def is_done(self) -> bool:
        """Whether the recorded point is reached. The host is ordered after it once this has returned True."""
        with self.core.lock:
            self.check_open()
            self.core.check_usable()
            if self.recorded is None or not self.core.is_reached(self.recorded.point):
                return False
            self.core.learn(self.recorded.known)
            return True

    def sync(self) -> None:
        """Block until the recorded point is reached; the host is ordered after it then."""
        with self.core.lock:
            self.core.begin("sync")
            recorded = self.require()
            self.core.await_point(recorded.point)
            self.core.learn(recorded.known)
            if recorded.error is not None:
                self.core.raise_fault(recorded.error)

    def elapsed_ns(self, earlier: Event) -> int:
        """Return device time from `earlier` to this event; raises an error of the work before either, as CUDA may.

        Raises MisuseError unless both are done.
        """
        first: SimulatedEvent = own(self.core, SimulatedEvent, earlier)
        with self.core.lock:
            self.core.check_usable()
            span_ns = self._done_ns() - first._done_ns()
            error = self.require().error or first.require().error
            if error is not None:
                self.core.raise_fault(error)
            return span_ns

    def require(self) -> Recorded:
        """Return the recorded state. Raises MisuseError if there is none. With the lock held."""
        self.check_open()
        if self.recorded is None:
            raise MisuseError(f"{self.label} used before it was recorded")
        return self.recorded

    def close(self) -> None:
        """Free it. Idempotent."""
        with self.core.lock:
            self.forget()

    def _done_ns(self) -> int:
        point = self.require().point
        if point.done_ns is None or not self.core.is_reached(point):
            raise MisuseError(f"{self.label} asked for its time before it is done")
        return point.done_ns

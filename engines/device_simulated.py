"""A device that proves ordering: every access that is not ordered after an earlier conflicting one raises RaceError.

Theory of operation
    The host and every device stream carry a vector clock. Enqueuing orders an operation after everything that the host
    knew then; `record` snapshots a stream's clock, `wait` and `sync` join it. Every buffer remembers, per range of
    bytes, the last write and the reads since. An access whose clock does not include an earlier conflicting one is a
    race, at any timing. Host accesses are the calls of `write_view` and `read_view`.

    Time is the injected clock's. The `CopyCosts` gives the cost of copies, the engine that of executions, and an
    operation starts when its stream is free and the points that it waits for are reached; `Event.sync` blocks until
    then. On a manual clock a test moves time; on a virtual clock waiting moves it.

It is no measure of a GPU's speed, and no model of its driver. All host threads are one actor (see
`engines.simulated.core`). Stricter than CUDA on purpose: a thread must attach itself, to one device of a machine at a
time, an event must be recorded before it is waited for, closing a buffer that is in use is a race, and closing the
device with anything open is an error.

Thread: any; one thread at a time on a device stream.
"""

from collections.abc import Sequence

import numpy as np

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
    StreamPriority,
)
from forebay_server.engines.errors import DeviceLostError, DeviceMemoryError, MisuseError, RaceError
from forebay_server.engines.host_memory import check_range
from forebay_server.engines.pictures import PictureForm, PictureLimits, PictureSupport
from forebay_server.engines.simulated.core import CopyCosts, Core, Machine, own
from forebay_server.engines.simulated.fault_plan import FaultPlan
from forebay_server.engines.simulated.handles import (
    ByteRange,
    SimulatedDeviceBuffer,
    SimulatedEvent,
    SimulatedHostBuffer,
    own_host,
)
from forebay_server.engines.simulated.pictures import FileDecoding, SimulatedPictureWriter
from forebay_server.engines.simulated.schedule import Operation
from forebay_server.engines.simulated.stream import SimulatedStream

__all__ = [
    "ByteRange",
    "CopyCosts",
    "FaultPlan",
    "FileDecoding",
    "Machine",
    "Operation",
    "SimulatedDevice",
    "SimulatedDeviceBuffer",
    "SimulatedEvent",
    "SimulatedHostBuffer",
    "SimulatedStream",
]


MEMORY_BYTES = 16 << 30  # of every simulated device


class SimulatedDevice:
    """See the module. The thread that makes it is attached.

    Args:
        clock: manual, virtual or real.
        index: of the device in its machine.
        cost: of copies; default: free.
        faults: planned faults.
        gather_below_bytes: see the contract; 0 copies each row from its own place.
        machine: of another simulated device, to share its host memory; default: a new one.
        files: how it decodes files; None: it decodes none.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        index: int = 0,
        cost: CopyCosts | None = None,
        faults: FaultPlan | None = None,
        gather_below_bytes: int = 0,
        machine: Machine | None = None,
        files: FileDecoding | None = None,
    ) -> None:
        self._files = files
        self.machine = machine or Machine()
        self._core = Core(clock, cost or CopyCosts(), faults or FaultPlan(), self.machine)
        self._index = index
        self._gather_below_bytes = gather_below_bytes
        self._core.attach_thread()

    @property
    def name(self) -> str:
        """`simulated`, and a number if it is not the first of its machine."""
        return f"simulated:{self._index}" if self._index else "simulated"

    @property
    def kind(self) -> DeviceKind:
        """SIMULATED."""
        return DeviceKind.SIMULATED

    @property
    def index(self) -> int:
        """The number given at its creation."""
        return self._index

    @property
    def kind_count(self) -> int:
        """The number of devices of its machine."""
        return self.machine.device_count

    @property
    def gather_below_bytes(self) -> int:
        """Rows smaller than this are gathered into one copy."""
        return self._gather_below_bytes

    @property
    def races(self) -> Sequence[RaceError]:
        """Every race found so far on its machine, including those whose RaceError was turned into another error."""
        with self._core.lock:
            return tuple(self.machine.races)

    @property
    def history(self) -> Sequence[Operation]:
        """The latest operations that took time, in the order in which their ends became known."""
        with self._core.lock:
            return tuple(self._core.schedule.history)

    @property
    def leaks(self) -> Sequence[str]:
        """The objects that are still open."""
        with self._core.lock:
            return tuple(self._core.open_handles.values())

    @property
    def is_synchronous(self) -> bool:
        """False."""
        return False

    def describe(self) -> DeviceDescription:
        """Return its own name."""
        return DeviceDescription(self.name)

    def raise_if_lost(self) -> None:
        """Raise DeviceLostError if a fault plan or `lose` has lost it."""
        with self._core.lock:
            self._core.raise_if_lost()

    def attach_thread(self) -> None:
        """Let the calling thread use this device, and no other of its machine."""
        self._core.attach_thread()

    def rank_thread(self, priority: StreamPriority) -> None:
        """Do nothing: streams are ranked."""

    def memory(self) -> DeviceMemory:
        """Return the size of the open device buffers, of MEMORY_BYTES."""
        with self._core.lock:
            self._core.check_usable()
            return DeviceMemory(self._core.device_bytes, MEMORY_BYTES)

    def alloc_host(self, nbytes: int) -> SimulatedHostBuffer:
        """Allocate host memory."""
        with self._core.lock:
            self._core.begin("alloc_host")
            return SimulatedHostBuffer(self._core, f"host buffer of {nbytes} bytes", nbytes)

    def borrow_host(self, memory: memoryview) -> HostBuffer | None:  # noqa: ARG002 - the contract's signature
        """None, as on CUDA."""
        return None

    def register_host(self, memory: memoryview) -> SimulatedHostBuffer:
        """Return a buffer over `memory`."""
        with self._core.lock:
            self._core.begin("register_host")
            label = f"registered buffer of {len(memory)} bytes"
            return SimulatedHostBuffer(self._core, label, len(memory), np.frombuffer(memory, np.uint8))

    def alloc_device(self, nbytes: int, mirror: HostBuffer | None = None) -> SimulatedDeviceBuffer:
        """Allocate device memory, separate from its mirror's."""
        with self._core.lock:
            self._core.begin("alloc_device")
            if mirror is not None:
                check_range("mirror", own_host(self._core, mirror).nbytes, 0, nbytes)
            if self._core.device_bytes + nbytes > MEMORY_BYTES:
                raise DeviceMemoryError(f"a simulated device has {MEMORY_BYTES} bytes; {nbytes} more do not fit")
            return SimulatedDeviceBuffer(self._core, f"device buffer of {nbytes} bytes", nbytes)

    def create_stream(
        self,
        name: str,
        *,
        priority: StreamPriority = StreamPriority.NORMAL,  # noqa: ARG002 - no priorities here
    ) -> SimulatedStream:
        """Create a device stream."""
        with self._core.lock:
            self._core.check_usable()
            return SimulatedStream(self._core, name)

    def create_event(self) -> SimulatedEvent:
        """Create an event."""
        with self._core.lock:
            self._core.check_usable()
            return SimulatedEvent(self._core)

    def picture_support(self) -> PictureSupport:
        """Planes always, and files with `files` of the constructor."""
        return PictureSupport(planes=True, files=self._files is not None)

    def open_pictures(
        self, form: PictureForm, limits: PictureLimits, device_stream: DeviceStream
    ) -> SimulatedPictureWriter:
        """Open a writer of pictures."""
        if limits.file_pixels and self._files is None:
            raise MisuseError(f"{self.name} decodes no files")
        stream: SimulatedStream = own(self._core, SimulatedStream, device_stream)
        return SimulatedPictureWriter(self, form, limits, stream, self._files)

    def own(self, buffer: HostBuffer | DeviceBuffer) -> SimulatedHostBuffer | SimulatedDeviceBuffer:
        """Return `buffer` if this device can use it. Raises MisuseError for another's, or after close."""
        if isinstance(buffer, SimulatedHostBuffer):
            return own_host(self._core, buffer)
        owned: SimulatedDeviceBuffer = own(self._core, SimulatedDeviceBuffer, buffer)
        return owned

    def own_event(self, event: Event) -> SimulatedEvent:
        """Return `event` as this device's own. Raises MisuseError for another device's, or after close."""
        owned: SimulatedEvent = own(self._core, SimulatedEvent, event)
        return owned

    def arm(self, faults: FaultPlan) -> None:
        """Replace the fault plan; operations are numbered anew from here."""
        with self._core.lock:
            self._core.arm(faults)

    def lose(self, message: str = "the device is lost, as the test asks") -> None:
        """Lose the device now: current and later waiters get DeviceLostError."""
        with self._core.lock:
            self._core.lose(DeviceLostError(message))

    def close(self) -> None:
        """Raise MisuseError if any object is open (and the device is not lost). Idempotent."""
        leaks = self.leaks
        if leaks and self._core.lost is None:
            raise MisuseError(f"device closed with {len(leaks)} open: {', '.join(leaks[:5])}")


def _conforms(
    device: SimulatedDevice, stream: SimulatedStream, event: SimulatedEvent
) -> tuple[Device, DeviceStream, Event]:
    return device, stream, event

"""The device contract: five small protocols with exactly the verbs that the pipeline uses.

Implementations: `device_host` (CPU memory, synchronous streams), `device_cuda` (cuda.bindings.runtime) and
`device_simulated` (a happens-before checker on virtual or real time). All three pass tests/contract.

Running a model is *not* here. Engines enqueue their own work on a `DeviceStream`.

Rules
- Everything is allocated at start-up; `alloc_*`, `create_*` and `close` are never called while serving.
- Memory is cleared when it gets its owner, by `alloc_*`, and not again: it never contains data of an earlier owner.
- Methods of one stream are called by one thread at a time. A thread calls `Device.attach_thread()` before its first use
  of a device or its objects.
- Copies and event records are *enqueued*: they return before they are done on an asynchronous device. Only
  `Event.sync`, `DeviceStream.sync` and `close` block.
- A host buffer may be read or written by the host only when every device operation on it is known to be done (an event
  recorded after it was synchronised). The simulated device raises RaceError otherwise, at any timing.
- A host buffer serves every device of its kind on this machine: a frame is decoded before its GPU is chosen
  (docs/adr/0036). Every other object belongs to the device that made it and is refused by any other.
"""

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from forebay_server.engines.pictures import PictureForm, PictureLimits, PictureSupport, PictureWriter


class DeviceKind(enum.StrEnum):
    """The kind of a device. `device.kind == DeviceKind.CPU` is the one way to ask whether it is the CPU."""

    CPU = "cpu"
    CUDA = "cuda"
    SIMULATED = "simulated"


@dataclass(frozen=True, slots=True)
class DeviceDescription:
    """A device's description for people, and for checking that a plan was built for it.

    Attributes:
        name: the product's, such as `NVIDIA H200`; the device's own name where there is none.
        compute_capability: CUDA's major and minor version of the hardware; None where there is none.
    """

    name: str
    compute_capability: tuple[int, int] | None = None


class StreamPriority(enum.Enum):
    """Urgency of the work of a device stream. A device with fewer levels merges neighbouring ones."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"
    COPY = "copy"  # the highest: copies do not queue behind kernels


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Memory of a device at one time.

    Attributes:
        used_bytes: of all users of the device, other processes included.
        total_bytes: size of its memory.
    """

    used_bytes: int
    total_bytes: int


class HostBuffer(Protocol):
    """Host memory that devices of a kind copy from and to asynchronously (pinned on CUDA).

    Owner: the allocating code.
    """

    @property
    def nbytes(self) -> int:
        """Capacity in bytes."""
        ...

    def write_view(self) -> NDArray[np.uint8]:
        """Return the memory, shape (nbytes,), for the host to write; valid until `close`. This is a checked access."""
        ...

    def read_view(self) -> NDArray[np.uint8]:
        """Return the memory, shape (nbytes,), for the host to read; valid until `close`. This is a checked access."""
        ...

    def part(self, offset: int, nbytes: int) -> "HostBuffer":
        """Return some of the bytes as a buffer of their own, valid until this one is closed, which closes it too.

        For memory that is cut into pieces for good, at start-up. Accesses of different parts have nothing to do with
        each other, and none with accesses of this buffer. Raises MisuseError if the bytes are not all inside.
        """
        ...

    def close(self) -> None:
        """Free it. Idempotent."""
        ...


Piece: TypeAlias = tuple[HostBuffer, int, int]
"""Bytes of a host buffer: the buffer, the offset of the first byte, and the number of bytes."""


class DeviceBuffer(Protocol):
    """Memory that an engine reads inputs from or writes outputs to."""

    @property
    def nbytes(self) -> int:
        """Capacity in bytes."""
        ...

    @property
    def address(self) -> int:
        """Address to give to an engine: device memory on CUDA, host memory on the others."""
        ...

    def close(self) -> None:
        """Free it. Idempotent."""
        ...


class Event(Protocol):
    """A point in a device stream. Reusable: a new `record` replaces the old point."""

    @property
    def is_done(self) -> bool:
        """Whether the recorded point has been reached. False before the first record."""
        ...

    def sync(self) -> None:
        """Block the calling thread until the recorded point is reached, without spinning.

        Raises:
            MisuseError: never recorded.
            ExecutionError: work before the point failed.
            DeviceLostError: the device is gone.
        """
        ...

    def elapsed_ns(self, earlier: "Event") -> int:
        """Return device time from `earlier` to this event; both are done."""
        ...

    def close(self) -> None:
        """Free it. Idempotent."""
        ...


class Graph(Protocol):
    """Captured work of one device stream. One launch of it runs at a time. Belongs to the device of its stream."""

    def launch(self, device_stream: "DeviceStream") -> None:
        """Enqueue all captured work with one call."""
        ...

    def close(self) -> None:
        """Free it. Idempotent."""
        ...


class DeviceStream(Protocol):
    """A queue of device work that runs in order; work of different streams overlaps unless an event orders it."""

    @property
    def handle(self) -> int:
        """The vendor's stream handle (cudaStream_t) for engines; 0 where there is none."""
        ...

    def copy_h2d(
        self,
        dst: DeviceBuffer,
        src: HostBuffer,
        nbytes: int,
        dst_offset: int = 0,
        src_offset: int = 0,
    ) -> None:
        """Enqueue a copy of `nbytes` bytes from host to device. A no-op where `dst` mirrors `src`."""
        ...

    def gather_h2d(self, dst: DeviceBuffer, pieces: Sequence[Piece]) -> None:
        """Enqueue copies of `pieces`, concatenated in `dst` from its start.

        Raises MisuseError, and none or only a part is enqueued, if they do not fit.
        """
        ...

    def copy_d2h(self, dst: HostBuffer, src: DeviceBuffer, nbytes: int) -> None:
        """Enqueue a copy of the first `nbytes` bytes from device to host. A no-op where `src` mirrors `dst`."""
        ...

    def record(self, event: Event) -> None:
        """Enqueue: `event` is done when all earlier work of this stream is done."""
        ...

    def wait(self, event: Event) -> None:
        """Enqueue: later work of this stream starts only after `event`. The host does not block."""
        ...

    def capture(self, enqueue: Callable[[], None]) -> Graph | None:
        """Capture the work that `enqueue` puts on this stream as a graph, without running it.

        Other threads may allocate meanwhile. Run the work once before, so that no part of it is lazy.

        Returns:
            None where the device has no graphs (`enqueue` is not called then), and for work that cannot be captured.
        """
        ...

    def sync(self) -> None:
        """Block the calling thread until all enqueued work is done. Raises as `Event.sync`."""
        ...

    def close(self) -> None:
        """Free it after its work is done. Idempotent."""
        ...


class Device(Protocol):
    """A device on which model instances run."""

    @property
    def name(self) -> str:
        """For people and metrics: `cpu`, `cuda:0`, `simulated`."""
        ...

    @property
    def kind(self) -> DeviceKind:
        """The kind of the device."""
        ...

    @property
    def index(self) -> int:
        """Its number among the devices of its kind, from 0."""
        ...

    @property
    def kind_count(self) -> int:
        """Number of devices of this kind in the machine, this one included."""
        ...

    def describe(self) -> DeviceDescription:
        """Describe the hardware. Blocks: for microseconds. Raises EngineError if the device is lost."""
        ...

    def raise_if_lost(self) -> None:
        """Raise DeviceLostError if the device is lost. For engines whose library failed without a reason."""
        ...

    @property
    def gather_below_bytes(self) -> int:
        """Rows smaller than this are gathered into one copy; larger ones are each copied from their own place."""
        ...

    @property
    def is_synchronous(self) -> bool:
        """Whether enqueued work is done when the call that enqueues it returns."""
        ...

    def attach_thread(self) -> None:
        """Prepare the calling thread to use this device, and no other (CUDA: select it). Idempotent."""
        ...

    def rank_thread(self, priority: StreamPriority) -> None:
        """Give the calling thread the priority of the device stream whose work it does, for good.

        Where threads do that work themselves (the CPU), LOW lets others have the cores first. Elsewhere the device
        ranks its streams, and nothing happens here. Blocks: no.
        """
        ...

    def memory(self) -> DeviceMemory | None:
        """Return the use of its memory; None where device memory is host memory. Blocks: for microseconds.

        Raises:
            EngineError: the device is lost.
        """
        ...

    def alloc_host(self, nbytes: int) -> HostBuffer:
        """Allocate host memory (pinned on CUDA), full of zeros. Raises DeviceMemoryError."""
        ...

    def borrow_host(self, memory: memoryview) -> HostBuffer | None:
        """Return a read-only host buffer over foreign bytes, or None where copies need the device's memory.

        Saves a copy where any host memory will do (the CPU). Constant per device: always a buffer, or never. The memory
        stays alive and unchanged until the buffer is forgotten; there is nothing to close.
        """
        ...

    def register_host(self, memory: memoryview) -> HostBuffer:
        """Return a host buffer over foreign bytes that may be written, as they are; on CUDA it pins them.

        For memory that other processes share. It stays alive until the buffer is closed, which leaves it to its owner.
        Raises DeviceMemoryError.
        """
        ...

    def alloc_device(self, nbytes: int, mirror: HostBuffer | None = None) -> DeviceBuffer:
        """Allocate device memory, full of zeros, except for the contents of a mirror. Raises DeviceMemoryError.

        Args:
            nbytes: capacity.
            mirror: the host buffer on the other side of this buffer's copies, of at least `nbytes` bytes. A device
                whose memory is host memory returns a view of it, and copies between the two are no-ops.
        """
        ...

    def create_stream(self, name: str, *, priority: StreamPriority = StreamPriority.NORMAL) -> DeviceStream:
        """Create a stream; of two with work ready, the device starts that of the higher priority first."""
        ...

    def create_event(self) -> Event:
        """Create an event that measures time and blocks without spinning."""
        ...

    def picture_support(self) -> "PictureSupport":
        """Say what it does with pictures by itself. Blocks: for seconds the first time. Raises EngineError if lost."""
        ...

    def open_pictures(
        self, form: "PictureForm", limits: "PictureLimits", device_stream: DeviceStream
    ) -> "PictureWriter":
        """Open a writer of pictures with everything that it needs; see `picture_support`.

        Raises:
            MisuseError: the device does not do that.
            BackendUnavailableError, DeviceMemoryError: it cannot now.
        """
        ...

    def close(self) -> None:
        """Free the device's own resources. Every buffer, stream and event is closed before. Idempotent."""
        ...

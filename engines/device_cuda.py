"""An NVIDIA GPU as a device, on cuda.bindings.runtime (engines/cuda).

Theory of operation
    Streams are non-blocking (never ordered with the legacy stream) and have priorities; events measure time and block
    without spinning. Host buffers are pinned, so that copies are asynchronous. Everything is allocated at start-up:
    cudaMalloc, cudaHostAlloc and their frees synchronise the device and never happen in service. Buffers are never
    freed while a model serves, so memory does not fragment. An allocation that would not leave HEADROOM_BYTES free is
    refused with a line that has a remedy.

Thread: any, after `attach_thread`. Methods that allocate, create or query memory attach by themselves: on a thread that
has not chosen a GPU, CUDA would use the first one.
"""

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from forebay_server.engines.clock import Clock
from forebay_server.engines.cuda.batched_copy import batched_copy
from forebay_server.engines.cuda.calls import check, device_count, error_of, gpu_info, runtime, unavailable
from forebay_server.engines.cuda.errors import no_device_error
from forebay_server.engines.cuda.handles import (
    CudaBuffer,
    CudaEvent,
    CudaStream,
    PinnedBuffer,
    PinnedMemory,
    RegisteredBuffer,
)
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
from forebay_server.engines.errors import DeviceLostError, DeviceMemoryError, ExecutionError, MisuseError
from forebay_server.engines.host_memory import check_range

if TYPE_CHECKING:
    from forebay_server.engines.pictures import PictureForm, PictureLimits, PictureSupport, PictureWriter

GATHER_BELOW_BYTES = 64 * 1024
"""One more asynchronous copy costs the h2d thread 3 to 5 us (docs/gpu.md); a memcpy of 64 KiB about as much."""

GATHER_BELOW_BATCHED_BYTES = 32 * 1024
"""One more in a call for many costs 1.5 to 3 us; a memcpy of 16 KiB about as much (docs/adr/0034)."""

HEADROOM_BYTES = 256 * 1024 * 1024
"""Device memory that allocations leave free: kernels and libraries load lazily and would fail in service."""

_MIB = 1024 * 1024


def stream_priorities(least: int, greatest: int) -> dict[StreamPriority, int]:
    """Return CUDA's number for each priority: the smaller, the more urgent. Copies have the most urgent for themselves.

    A range of 0 to -5 gives 0, -2, -4 and -5. Where there are only two numbers, LOW is NORMAL and HIGH is COPY.
    """
    high = greatest + 1 if least - greatest > 1 else greatest
    return {
        StreamPriority.LOW: least,
        StreamPriority.NORMAL: least - (least - high) // 2,
        StreamPriority.HIGH: high,
        StreamPriority.COPY: greatest,
    }


@dataclass(slots=True)
class AllocatedBytes:
    """Bytes that this device object has allocated and not freed. The tests of leaks read them."""

    pinned_bytes: int = 0
    device_bytes: int = 0


class CudaDevice:
    """One GPU. Raises BackendUnavailableError with a remedy if it cannot be used."""

    def __init__(self, *, clock: Clock, index: int = 0) -> None:
        del clock  # events are stamped by the GPU
        count = device_count()
        if not 0 <= index < count:
            gpus = "1 GPU, number 0" if count == 1 else f"{count} GPUs, numbers 0 to {count - 1}"
            raise no_device_error("cudaErrorInvalidDevice", f"there is no GPU {index}: this machine has {gpus}")
        self.index = index
        self._kind_count = count
        self.allocated = AllocatedBytes()
        flags = runtime.cudaDeviceScheduleBlockingSync
        runtime.cudaInitDevice(index, flags, runtime.cudaInitDeviceFlagsAreValid)  # may be set already: not an error
        runtime.cudaGetLastError()
        code = runtime.cudaSetDevice(index)[0]
        if int(code) != 0:
            raise unavailable(code)
        least, greatest = check(runtime.cudaDeviceGetStreamPriorityRange(), "cudaDeviceGetStreamPriorityRange")
        self._priorities = stream_priorities(int(least), int(greatest))
        self.batched_copy = batched_copy()

    @property
    def name(self) -> str:
        """`cuda:0`."""
        return f"cuda:{self.index}"

    @property
    def kind(self) -> DeviceKind:
        """CUDA."""
        return DeviceKind.CUDA

    @property
    def kind_count(self) -> int:
        """Number of GPUs that CUDA shows to this process."""
        return self._kind_count

    @property
    def gather_below_bytes(self) -> int:
        """See GATHER_BELOW_BYTES and GATHER_BELOW_BATCHED_BYTES."""
        return GATHER_BELOW_BYTES if self.batched_copy is None else GATHER_BELOW_BATCHED_BYTES

    @property
    def is_synchronous(self) -> bool:
        """False."""
        return False

    def attach_thread(self) -> None:
        """Select this GPU for the calling thread."""
        check(runtime.cudaSetDevice(self.index), "cudaSetDevice")

    def describe(self) -> DeviceDescription:
        """Describe the GPU."""
        info = gpu_info(self.index)
        return DeviceDescription(info.name, info.compute_capability)

    def free_bytes(self) -> int:
        """Return how much device memory is free now, in all processes together."""
        memory = self.memory()
        return memory.total_bytes - memory.used_bytes

    def rank_thread(self, priority: StreamPriority) -> None:
        """Do nothing: streams are ranked."""

    def memory(self) -> DeviceMemory:
        """Return the use of the GPU's memory, all processes together."""
        self.attach_thread()  # CUDA answers for the calling thread's GPU
        free, total = check(runtime.cudaMemGetInfo(), "cudaMemGetInfo")
        return DeviceMemory(int(total) - int(free), int(total))

    def raise_if_lost(self) -> None:
        """Raise DeviceLostError if a sticky error has happened. For use after a vendor's library has failed."""
        code = runtime.cudaGetLastError()[0]
        if int(code) != 0 and isinstance(error := error_of(code, "a library's call"), DeviceLostError):
            raise error
        try:
            self.free_bytes()  # a sticky error is returned by every call
        except ExecutionError:
            return

    def alloc_host(self, nbytes: int) -> PinnedBuffer:
        """Allocate pinned memory."""
        return PinnedBuffer(self, nbytes)

    def borrow_host(self, memory: memoryview) -> HostBuffer | None:  # noqa: ARG002 - the contract's signature
        """None: copies from memory that is not pinned are staged, and block."""
        return None

    def register_host(self, memory: memoryview) -> RegisteredBuffer:
        """Pin `memory`, for every GPU."""
        return RegisteredBuffer(self, np.frombuffer(memory, np.uint8))

    def alloc_device(self, nbytes: int, mirror: HostBuffer | None = None) -> CudaBuffer:
        """Allocate device memory; `mirror` is separate memory here and only checked."""
        if mirror is not None:
            check_range("mirror", self.own_host(mirror).nbytes, 0, nbytes)
        return CudaBuffer(self, self.allocate("device", nbytes), nbytes)

    def allocate(self, what: str, nbytes: int) -> int:
        """Allocate `pinned host` or `device` memory, clear it, account for it and return its address.

        CUDA clears neither within a process: both contain the data of their last owner.
        """
        if nbytes < 0:
            raise MisuseError(f"cannot allocate {nbytes} bytes")
        self.attach_thread()  # buffers for requests of several rows are allocated by the thread that decodes them
        is_device = what == "device"
        if is_device and nbytes + HEADROOM_BYTES > (free := self.free_bytes()):
            raise DeviceMemoryError(
                f"{self.name} has {free // _MIB} MiB free, which does not hold {-(-nbytes // _MIB)} MiB more and the "
                f"{HEADROOM_BYTES // _MIB} MiB kept for kernels: use fewer instances, models or rows per batch"
            )
        try:
            if is_device:
                address = int(check(runtime.cudaMalloc(max(nbytes, 1)), "cudaMalloc"))
                self.allocated.device_bytes += nbytes
                check(runtime.cudaMemset(address, 0, nbytes), "cudaMemset")
                check(runtime.cudaStreamSynchronize(0), "cudaStreamSynchronize")  # our streams do not wait for it
            else:
                flags = runtime.cudaHostAllocPortable  # for every GPU: frames are leased before their GPU is chosen
                address = int(check(runtime.cudaHostAlloc(max(nbytes, 1), flags), "cudaHostAlloc"))
                self.allocated.pinned_bytes += nbytes
                ctypes.memset(address, 0, nbytes)
        except DeviceMemoryError as error:
            raise DeviceMemoryError(
                f"{self.name}: no {-(-nbytes // _MIB)} MiB of {what} memory: use fewer permits or instances ({error})"
            ) from error
        return address

    def pin(self, address: int, nbytes: int) -> None:
        """Pin memory that the process has mapped, and account for it. Raises DeviceMemoryError."""
        self.attach_thread()
        try:
            check(runtime.cudaHostRegister(address, nbytes, runtime.cudaHostRegisterPortable), "cudaHostRegister")
        except (DeviceMemoryError, ExecutionError) as error:
            raise DeviceMemoryError(
                f"{self.name}: {-(-nbytes // _MIB)} MiB of shared memory cannot be pinned: use fewer permits, or "
                f"front_ends 0 ({error})"
            ) from error
        self.allocated.pinned_bytes += nbytes

    def create_stream(self, name: str, *, priority: StreamPriority = StreamPriority.NORMAL) -> CudaStream:
        """Create a non-blocking stream."""
        self.attach_thread()
        return CudaStream(self, name, self._priorities[priority])

    def create_event(self) -> CudaEvent:
        """Create an event."""
        self.attach_thread()
        return CudaEvent(self)

    def picture_support(self) -> "PictureSupport":
        """Say whether NVRTC compiles the kernel, and whether nvJPEG has an engine on this GPU."""
        from forebay_server.engines.cuda.pictures import support_of

        self.attach_thread()
        return support_of(gpu_info(self.index).compute_capability, self.index)

    def open_pictures(
        self, form: "PictureForm", limits: "PictureLimits", device_stream: DeviceStream
    ) -> "PictureWriter":
        """Open a writer of pictures."""
        from forebay_server.engines.cuda.pictures import CudaPictureWriter

        self.attach_thread()
        return CudaPictureWriter(self, form, limits, self.own_stream(device_stream))

    def close(self) -> None:
        """The device has no resources of its own: the primary context is the process's."""

    def own(self, buffer: DeviceBuffer) -> CudaBuffer:
        """Return a device buffer as this device's own. Raises MisuseError for another's, or a closed one."""
        if not isinstance(buffer, CudaBuffer) or buffer.device is not self:
            raise MisuseError(f"{type(buffer).__name__} belongs to another device than {self.name}")
        if buffer.is_closed:
            raise MisuseError("device buffer used after close")
        return buffer

    def own_host(self, buffer: HostBuffer) -> PinnedMemory:
        """Return a host buffer of any GPU: pinned memory is portable. Raises MisuseError for others or a closed one."""
        if not isinstance(buffer, PinnedMemory):
            raise MisuseError(f"{type(buffer).__name__} is no pinned memory, which {self.name} needs")
        if buffer.is_closed:
            raise MisuseError("host buffer used after close")
        return buffer

    def own_stream(self, device_stream: DeviceStream) -> CudaStream:
        """Return a device stream as this device's own. Raises MisuseError for another's."""
        if not isinstance(device_stream, CudaStream) or device_stream.device is not self:
            raise MisuseError(f"{type(device_stream).__name__} belongs to another device than {self.name}")
        return device_stream

    def own_event(self, event: Event) -> CudaEvent:
        """Return an event as this device's own. Raises MisuseError for another's, or a closed one."""
        if not isinstance(event, CudaEvent) or event.device is not self:
            raise MisuseError(f"{type(event).__name__} belongs to another device than {self.name}")
        if event.is_closed:
            raise MisuseError("event used after close")
        return event


def _conforms(device: CudaDevice, stream: CudaStream) -> tuple[Device, DeviceStream]:
    return device, stream

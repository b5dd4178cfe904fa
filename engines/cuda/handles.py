"""The objects that a CUDA device makes: buffers, events, streams and graphs.

Each belongs to one device and is freed once.

Thread: any that is attached to the device; one thread at a time on a device stream.
"""

import ctypes
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from forebay_server.engines.cuda.calls import check, runtime
from forebay_server.engines.device import DeviceBuffer, DeviceStream, Event, HostBuffer, Piece
from forebay_server.engines.errors import ExecutionError, MisuseError
from forebay_server.engines.host_memory import check_range

if TYPE_CHECKING:
    from forebay_server.engines.device_cuda import CudaDevice


class Handle:
    """An object of a device that is freed once."""

    def __init__(self, device: "CudaDevice") -> None:
        self.device = device
        self.is_closed = False

    def close(self) -> None:
        """Free it. Idempotent; silent on a lost device, which frees everything with the process."""
        if not self.is_closed:
            self.is_closed = True
            self._free()

    def _free(self) -> None:
        raise NotImplementedError

    def _check_open(self) -> None:
        if self.is_closed:
            raise MisuseError(f"{type(self).__name__} used after close")


class PinnedMemory(Handle):
    """Page-locked host memory: a device copies from and to it asynchronously. Itself: a part of some other memory."""

    def __init__(self, device: "CudaDevice", address: int, view: NDArray[np.uint8]) -> None:
        super().__init__(device)
        self.address = address
        self.nbytes = len(view)
        self._view = view
        self._parts: list[PinnedMemory] = []

    def write_view(self) -> NDArray[np.uint8]:
        """Return the memory for the host to write; not valid after `close`."""
        self._check_open()
        return self._view

    def read_view(self) -> NDArray[np.uint8]:
        """Return the memory for the host to read; not valid after `close`."""
        self._check_open()
        return self._view

    def part(self, offset: int, nbytes: int) -> "PinnedMemory":
        """Return some of the bytes as a buffer of their own."""
        self._check_open()
        check_range("part", self.nbytes, offset, nbytes)
        self._parts.append(PinnedMemory(self.device, self.address + offset, self._view[offset : offset + nbytes]))
        return self._parts[-1]

    def close(self) -> None:
        """Free it, and its parts with it."""
        for part in self._parts:
            part.close()
        super().close()

    def _free(self) -> None:
        """A part has nothing of its own."""


class PinnedBuffer(PinnedMemory):
    """Memory that the device has allocated."""

    def __init__(self, device: "CudaDevice", nbytes: int) -> None:
        address = device.allocate("pinned host", nbytes)
        memory = (ctypes.c_uint8 * max(nbytes, 1)).from_address(address)
        super().__init__(device, address, np.ctypeslib.as_array(memory)[:nbytes])

    def _free(self) -> None:
        runtime.cudaFreeHost(self.address)
        self.device.allocated.pinned_bytes -= self.nbytes


class RegisteredBuffer(PinnedMemory):
    """Foreign memory that the device has pinned."""

    def __init__(self, device: "CudaDevice", view: NDArray[np.uint8]) -> None:
        address = int(view.ctypes.data)
        device.pin(address, len(view))
        super().__init__(device, address, view)

    def _free(self) -> None:
        runtime.cudaHostUnregister(self.address)
        self.device.allocated.pinned_bytes -= self.nbytes


class CudaBuffer(Handle):
    """Device memory."""

    def __init__(self, device: "CudaDevice", address: int, nbytes: int) -> None:
        super().__init__(device)
        self.address = address
        self.nbytes = nbytes

    def _free(self) -> None:
        runtime.cudaFree(self.address)
        self.device.allocated.device_bytes -= self.nbytes


class CudaEvent(Handle):
    """A cudaEvent_t that measures time and blocks without spinning."""

    def __init__(self, device: "CudaDevice") -> None:
        super().__init__(device)
        self.raw = check(runtime.cudaEventCreateWithFlags(runtime.cudaEventBlockingSync), "cudaEventCreateWithFlags")
        self.is_recorded = False

    @property
    def is_done(self) -> bool:
        """Whether the recorded point has been reached. Raises as `sync` if work before it failed."""
        if not self.is_recorded:
            return False
        code = runtime.cudaEventQuery(self.raw)[0]
        if code == runtime.cudaError_t.cudaErrorNotReady:
            return False
        check((code,), "cudaEventQuery")
        return True

    def sync(self) -> None:
        """Block until the recorded point is reached."""
        self.check_recorded()
        check(runtime.cudaEventSynchronize(self.raw), "cudaEventSynchronize")

    def elapsed_ns(self, earlier: Event) -> int:
        """Return device time from `earlier`; resolution about 0.5 us."""
        self.check_recorded()
        first = self.device.own_event(earlier)
        first.check_recorded()
        elapsed_ms: float = check(runtime.cudaEventElapsedTime(first.raw, self.raw), "cudaEventElapsedTime")
        return round(elapsed_ms * 1e6)

    def check_recorded(self) -> None:
        """Raise MisuseError if the event was never recorded, or is closed."""
        self._check_open()
        if not self.is_recorded:
            raise MisuseError("event used before it was recorded")

    def _free(self) -> None:
        runtime.cudaEventDestroy(self.raw)


class CudaGraph(Handle):
    """Captured work of one device stream, launched with one call. One launch of it runs at a time."""

    def __init__(self, device: "CudaDevice", executable: Any) -> None:  # noqa: ANN401
        super().__init__(device)
        self._executable = executable

    def launch(self, device_stream: DeviceStream) -> None:
        """Enqueue all captured work."""
        self._check_open()
        check(runtime.cudaGraphLaunch(self._executable, self.device.own_stream(device_stream).raw), "cudaGraphLaunch")

    def _free(self) -> None:
        runtime.cudaGraphExecDestroy(self._executable)


class CudaStream(Handle):
    """A non-blocking cudaStream_t."""

    def __init__(self, device: "CudaDevice", name: str, priority: int) -> None:
        super().__init__(device)
        self.name = name
        self.raw = check(
            runtime.cudaStreamCreateWithPriority(runtime.cudaStreamNonBlocking, priority),
            "cudaStreamCreateWithPriority",
        )
        self._handle = int(self.raw)

    @property
    def handle(self) -> int:
        """The cudaStream_t; never 0, the default stream, on which vendors' libraries synchronise the device."""
        return self._handle

    def copy_h2d(
        self, dst: DeviceBuffer, src: HostBuffer, nbytes: int, dst_offset: int = 0, src_offset: int = 0
    ) -> None:
        """Enqueue a copy to the device."""
        target, source = self.device.own(dst), self.device.own_host(src)
        kind = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._copy(target, dst_offset, source, src_offset, nbytes, kind)

    def gather_h2d(self, dst: DeviceBuffer, pieces: Sequence[Piece]) -> None:
        """Enqueue copies of `pieces` to the device, in one call where the driver supports it."""
        batched, end = self.device.batched_copy, 0
        if batched is None or len(pieces) == 1:
            for src, offset, nbytes in pieces:
                self.copy_h2d(dst, src, nbytes, end, offset)
                end += nbytes
            return
        self._check_open()
        target = self.device.own(dst)
        targets, sources, sizes = [], [], []
        for src, offset, nbytes in pieces:
            source = self.device.own_host(src)
            check_range("copy from", source.nbytes, offset, nbytes)
            if nbytes:
                targets.append(target.address + end)
                sources.append(source.address + offset)
                sizes.append(nbytes)
                end += nbytes
        check_range("copy to", target.nbytes, 0, end)
        if sizes:
            batched.enqueue(targets, sources, sizes, self.raw)

    def copy_d2h(self, dst: HostBuffer, src: DeviceBuffer, nbytes: int) -> None:
        """Enqueue a copy to the host."""
        target, source = self.device.own_host(dst), self.device.own(src)
        kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._copy(target, 0, source, 0, nbytes, kind)

    def _copy(
        self,
        target: CudaBuffer | PinnedMemory,
        target_offset: int,
        source: CudaBuffer | PinnedMemory,
        source_offset: int,
        nbytes: int,
        kind: Any,  # noqa: ANN401
    ) -> None:
        self._check_open()
        check_range("copy to", target.nbytes, target_offset, nbytes)
        check_range("copy from", source.nbytes, source_offset, nbytes)
        result = runtime.cudaMemcpyAsync(
            target.address + target_offset, source.address + source_offset, nbytes, kind, self.raw
        )
        check(result, "cudaMemcpyAsync")

    def record(self, event: Event) -> None:
        """Enqueue: `event` is done when all earlier work is done."""
        self._check_open()
        own = self.device.own_event(event)
        check(runtime.cudaEventRecord(own.raw, self.raw), "cudaEventRecord")
        own.is_recorded = True

    def wait(self, event: Event) -> None:
        """Enqueue: later work starts only after `event`. The host does not block."""
        self._check_open()
        own = self.device.own_event(event)
        own.check_recorded()
        check(runtime.cudaStreamWaitEvent(self.raw, own.raw, 0), "cudaStreamWaitEvent")

    def sync(self) -> None:
        """Block until all enqueued work is done."""
        self._check_open()
        check(runtime.cudaStreamSynchronize(self.raw), "cudaStreamSynchronize")

    def capture(self, enqueue: Callable[[], None]) -> CudaGraph | None:
        """Capture the work that `enqueue` puts on this stream as a graph; None if that work cannot be captured.

        Thread-local mode: other threads may allocate meanwhile. Warm the work up first, so that no part of it is lazy.
        """
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        check(runtime.cudaStreamBeginCapture(self.raw, mode), "cudaStreamBeginCapture")
        is_captured, graph = False, None
        try:
            try:
                enqueue()
                is_captured = True
            except ExecutionError:
                pass  # returns None: the caller has a way without a graph
            finally:
                code, graph = runtime.cudaStreamEndCapture(self.raw)  # always, or the stream stays in capture
                runtime.cudaGetLastError()
            if int(code) != 0 or not is_captured:
                return None
            return CudaGraph(self.device, check(runtime.cudaGraphInstantiate(graph, 0), "cudaGraphInstantiate"))
        finally:
            if graph is not None and int(graph) != 0:
                runtime.cudaGraphDestroy(graph)

    def _free(self) -> None:
        runtime.cudaStreamSynchronize(self.raw)
        runtime.cudaStreamDestroy(self.raw)

"""A stand-in for cuda.bindings.runtime: host memory, work done when enqueued, errors on demand.

Stricter than CUDA: a thread must select the GPU before it works with it (CUDA takes the first), and then uses only
streams, events, graphs and memory of that GPU (pinned memory is every GPU's); a copy must stay within one live
allocation on the side that its kind names, and every object used on a stream must be open. Memory of another process is
made with `export` and reached through its handle only.

It proves that calls, checks and translations fit together; tests/heavy/vendor checks the names against the real
binding, and tests/gpu the behaviour on a GPU.
"""
# ruff: noqa: N801, N802, N815 - the names are CUDA's

import collections
import ctypes
import enum
import itertools
import sys
import threading
import types

OURS = (
    "forebay_server.engines.device_cuda",
    "forebay_server.engines.cuda",
    "forebay_server.engines.cuda.batched_copy",
    "forebay_server.engines.cuda.calls",
    "forebay_server.engines.cuda.errors",
    "forebay_server.engines.cuda.foreign_memory",
    "forebay_server.engines.cuda.handles",
)


LEFT_BEHIND = 0xEE  # in memory that CUDA hands out a second time


class cudaError_t(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorInvalidMemcpyDirection = 21
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorInvalidDevice = 101
    cudaErrorInvalidResourceHandle = 400
    cudaErrorNotReady = 600
    cudaErrorIllegalAddress = 700
    cudaErrorHostMemoryAlreadyRegistered = 712
    cudaErrorHostMemoryNotRegistered = 713
    cudaErrorStreamCaptureInvalidated = 901


class cudaMemcpyKind(enum.IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


class cudaMemcpySrcAccessOrder(enum.IntEnum):
    cudaMemcpySrcAccessOrderInvalid = 0
    cudaMemcpySrcAccessOrderStream = 1


class cudaMemcpyAttributes:
    srcAccessOrder = cudaMemcpySrcAccessOrder.cudaMemcpySrcAccessOrderInvalid


class cudaStreamCaptureMode(enum.IntEnum):
    cudaStreamCaptureModeThreadLocal = 1


class cudaIpcMemHandle_t:
    """64 bytes that are reached through their address, as in the binding."""

    def __init__(self):
        self.memory = (ctypes.c_uint8 * 64)()

    def getPtr(self):
        return ctypes.addressof(self.memory)


class RefusedError(Exception):
    """The code that a call answers with."""


class Properties:
    name = b"Fake GPU"
    major, minor = 9, 0
    totalGlobalMem = 1 << 30


class Allocation:
    """Bytes on one side; `address` is aligned as CUDA aligns."""

    def __init__(self, side, nbytes, device=0):
        self.side, self.nbytes, self.device = side, nbytes, device
        self.block = (ctypes.c_uint8 * (nbytes + 256))()
        self.address = -(-ctypes.addressof(self.block) // 256) * 256

    def holds(self, address, nbytes):
        return self.address <= address and address + nbytes <= self.address + self.nbytes

    @property
    def bytes(self):
        return (ctypes.c_uint8 * self.nbytes).from_address(self.address)


class FakeCudart:
    """The module.

    `sticky` makes every call fail from then on; `fail` names the next result of one call, `fail_on` that of one call on
    one GPU, `before` a function to run before the next call of a name.

    Attributes:
        memory: allocations that were not freed, by address.
        registered: bytes of foreign memory that is pinned, by address.
        exported: exports of another process, by handle.
        mapped: number of times that each exported allocation is open here, by handle.
        gpu_of: the GPU on which a stream, an event or a graph was made.
        uploads: number of copies to the device, by GPU.
        free_bytes_of: free memory by GPU, where it is not `free_bytes`.
    """

    cudaError_t, cudaMemcpyKind, cudaStreamCaptureMode = cudaError_t, cudaMemcpyKind, cudaStreamCaptureMode
    cudaMemcpyAttributes, cudaMemcpySrcAccessOrder = cudaMemcpyAttributes, cudaMemcpySrcAccessOrder
    cudaIpcMemHandle_t, cudaIpcMemLazyEnablePeerAccess = cudaIpcMemHandle_t, 1
    cudaEventBlockingSync, cudaStreamNonBlocking, cudaHostAllocPortable, cudaHostRegisterPortable = 1, 1, 1, 1
    cudaDeviceScheduleBlockingSync, cudaInitDeviceFlagsAreValid = 4, 1

    def __init__(self, gpus: int = 1, free_bytes: int = 1 << 30) -> None:
        self.gpus, self.free_bytes = gpus, free_bytes
        self.driver_version = 13000
        self.sticky = cudaError_t.cudaSuccess
        self.fail: dict[str, cudaError_t] = {}
        self.fail_on: dict[tuple[str, int], cudaError_t] = {}
        self.before: dict[str, object] = {}
        self.memory: dict[int, Allocation] = {}
        self.registered: dict[int, int] = {}
        self.exported: dict[bytes, Allocation] = {}
        self.mapped: dict[bytes, int] = {}
        self.priorities = (0, -5)
        self.stream_priorities: dict[int, int] = {}
        self._selected = threading.local()
        self.events: dict[int, int] = {}
        self.open: set[int] = set()
        self.gpu_of: dict[int, int] = {}
        self.free_bytes_of: dict[int, int] = {}
        self.launches = 0
        self._capturing: dict[int, list] = {}
        self._captured: dict[int, list] = {}
        self.uploads: collections.Counter[int] = collections.Counter()
        self._ids, self._time = itertools.count(1), itertools.count(1)

    def __getattr__(self, name):
        if name not in _CALLS:
            raise AttributeError(name)

        def call(*arguments):
            try:
                self._check(name, arguments)
                self.before.pop(name, lambda: None)()
                value = getattr(self, f"_{name}", lambda *_: ())(*arguments)
            except RefusedError as refused:
                return (refused.args[0], *[None] * _CALLS[name])
            return (cudaError_t.cudaSuccess, *value)

        return call

    def _check(self, name, arguments):
        """Refuse a call that fails, or that this thread may not make."""
        gpu = getattr(self._selected, "index", -1)
        code = self.sticky or self.fail.pop(name, 0) or self.fail_on.pop((name, gpu), 0)
        if not code and name not in _WITHOUT_A_GPU and gpu < 0:
            code = cudaError_t.cudaErrorInvalidDevice
        handles = [arguments[at] for at in _HANDLES_AT.get(name, ())]
        is_default = name == "cudaStreamSynchronize" and handles == [0]  # every GPU has a stream 0
        if not code and not is_default and any(self.gpu_of[handle] != gpu for handle in handles):
            code = cudaError_t.cudaErrorInvalidResourceHandle
        if code:
            raise RefusedError(code)

    def cudaGetErrorName(self, code):
        return (cudaError_t.cudaSuccess, code.name.encode())

    def cudaGetErrorString(self, code):
        return (cudaError_t.cudaSuccess, f"text of {code.name}".encode())

    def cudaGetLastError(self):
        return (self.sticky,)

    def cudaGetDeviceCount(self):
        code = self.fail.get("cudaGetDeviceCount", cudaError_t.cudaSuccess)
        return (code, None if code else self.gpus)

    def _new(self, *_):
        number = next(self._ids)
        self.open.add(number)
        self.gpu_of[number] = self._selected.index
        return (number,)

    _cudaStreamCreateWithFlags = _cudaEventCreateWithFlags = _new

    def _cudaStreamCreateWithPriority(self, _flags, priority):
        if not self.priorities[1] <= priority <= self.priorities[0]:  # CUDA takes the nearest
            raise RefusedError(cudaError_t.cudaErrorInvalidValue)
        (handle,) = self._new()
        self.stream_priorities[handle] = priority
        return (handle,)

    def _close(self, handle):
        self.open.remove(handle)
        return ()

    _cudaStreamDestroy = _cudaEventDestroy = _cudaGraphDestroy = _cudaGraphExecDestroy = _close

    def _cudaSetDevice(self, index):
        if not 0 <= index < self.gpus:
            raise RefusedError(cudaError_t.cudaErrorInvalidDevice)
        self._selected.index = index
        return ()

    def _allocate(self, side, nbytes):
        allocation = Allocation(side, nbytes, self._selected.index)
        self.memory[allocation.address] = allocation
        ctypes.memset(allocation.address, LEFT_BEHIND, nbytes)
        return (allocation.address,)

    def _cudaMalloc(self, nbytes):
        return self._allocate("device", nbytes)

    def _cudaHostAlloc(self, nbytes, _flags):
        return self._allocate("host", nbytes)

    def _cudaHostRegister(self, address, nbytes, _flags):
        """Pin foreign memory; CUDA refuses what is pinned already, and memory that is not mapped."""
        if any(start < address + nbytes and address < start + size for start, size in self.registered.items()):
            raise RefusedError(cudaError_t.cudaErrorHostMemoryAlreadyRegistered)
        self.registered[address] = nbytes
        return ()

    def _cudaHostUnregister(self, address):
        if address not in self.registered:
            raise RefusedError(cudaError_t.cudaErrorHostMemoryNotRegistered)
        del self.registered[address]
        return ()

    def _free(self, side, address):
        if address not in self.memory or self.memory[address].side != side:
            raise RefusedError(cudaError_t.cudaErrorInvalidValue)
        if side == "device" and self.memory[address].device != self._selected.index:
            raise RefusedError(cudaError_t.cudaErrorInvalidDevice)
        del self.memory[address]
        return ()

    def _cudaFree(self, address):
        return self._free("device", address)

    def _cudaFreeHost(self, address):
        return self._free("host", address)

    def _on_device(self, address, nbytes):
        """Whether a range is in this GPU's memory that is open here; a range that leaves it is refused."""
        opened = [self.exported[handle] for handle in self.mapped]
        for allocation in (*self.memory.values(), *opened):
            if allocation.side == "device" and allocation.holds(address, 0):
                if not allocation.holds(address, nbytes) or allocation.device != self._selected.index:
                    raise RefusedError(cudaError_t.cudaErrorInvalidValue)
                return True
        return False

    def _cudaMemset(self, target, value, nbytes):
        if not self._on_device(target, nbytes):
            raise RefusedError(cudaError_t.cudaErrorInvalidValue)
        ctypes.memset(target, value, nbytes)
        return ()

    def _cudaMemcpyAsync(self, target, source, nbytes, kind, stream):
        if stream not in self.open:
            raise RefusedError(cudaError_t.cudaErrorInvalidResourceHandle)
        sides = self._on_device(target, nbytes), self._on_device(source, nbytes)
        if sides != {cudaMemcpyKind.cudaMemcpyHostToDevice: (True, False)}.get(kind, (False, True)):
            raise RefusedError(cudaError_t.cudaErrorInvalidMemcpyDirection)
        if stream in self._capturing:
            self._capturing[stream].append((target, source, nbytes))
            return ()
        self.uploads[self._selected.index] += kind is cudaMemcpyKind.cudaMemcpyHostToDevice
        ctypes.memmove(target, source, nbytes)
        return ()

    def _cudaMemcpyBatchAsync(self, targets, sources, sizes, count, attributes, starts, groups, stream):
        orders = {each.srcAccessOrder for each in attributes}
        is_whole = len(targets) == len(sources) == len(sizes) == count > 0 and min(sizes) > 0
        if not is_whole or starts != [0] or groups != 1 or orders != {cudaMemcpySrcAccessOrder(1)}:
            raise RefusedError(cudaError_t.cudaErrorInvalidValue)
        for target, source, nbytes in reversed(list(zip(targets, sources, sizes, strict=True))):  # in no order
            self._cudaMemcpyAsync(target, source, nbytes, cudaMemcpyKind.cudaMemcpyHostToDevice, stream)
        return ()

    def export(self, nbytes, device=0):
        """Return the handle of new memory of another process; its bytes are `exported[handle].bytes`."""
        handle = next(self._ids).to_bytes(64, "little")
        self.exported[handle] = Allocation("device", nbytes, device)
        return handle

    def _cudaIpcOpenMemHandle(self, opened, _flags):
        handle = bytes(opened.memory)
        if handle not in self.exported:
            raise RefusedError(cudaError_t.cudaErrorInvalidResourceHandle)
        if self.exported[handle].device != self._selected.index:
            raise RefusedError(cudaError_t.cudaErrorInvalidDevice)
        self.mapped[handle] = self.mapped.get(handle, 0) + 1
        return (self.exported[handle].address,)

    def _cudaIpcCloseMemHandle(self, address):
        for handle in self.mapped:
            if self.exported[handle].address == address:
                self.mapped[handle] -= 1
                if not self.mapped[handle]:
                    del self.mapped[handle]
                return ()
        raise RefusedError(cudaError_t.cudaErrorInvalidResourceHandle)

    def _cudaEventRecord(self, event, _stream):
        self.events[event] = next(self._time)
        return ()

    def _cudaEventElapsedTime(self, first, second):
        return (float(self.events[second] - self.events[first]),)

    def _cudaMemGetInfo(self):
        gpu = self._selected.index
        mine = (each for each in self.memory.values() if each.side == "device" and each.device == gpu)
        return (self.free_bytes_of.get(gpu, self.free_bytes) - sum(each.nbytes for each in mine), 1 << 30)

    def _cudaDeviceGetStreamPriorityRange(self):
        return self.priorities

    def _cudaGetDeviceProperties(self, _index):
        return (Properties(),)

    def _cudaDriverGetVersion(self):
        return (self.driver_version,)

    def _cudaRuntimeGetVersion(self):
        return (13000,)

    def _cudaStreamBeginCapture(self, stream, _mode):
        self._capturing[stream] = []
        return ()

    def _cudaStreamEndCapture(self, stream):
        (graph,) = self._new()
        self._captured[graph] = self._capturing.pop(stream)
        return (graph,)

    def _cudaGraphInstantiate(self, graph, _flags):
        (executable,) = self._new()
        self._captured[executable] = self._captured[graph]
        return (executable,)

    def _cudaGraphLaunch(self, executable, _stream):
        self.launches += 1
        for copy in self._captured[executable]:
            ctypes.memmove(*copy)
        return ()


_CALLS = {
    # name: how many values follow the code
    **dict.fromkeys(
        [
            "cudaSetDevice",
            "cudaInitDevice",
            "cudaFree",
            "cudaFreeHost",
            "cudaEventDestroy",
            "cudaEventQuery",
            "cudaEventRecord",
            "cudaEventSynchronize",
            "cudaGraphDestroy",
            "cudaGraphExecDestroy",
            "cudaGraphLaunch",
            "cudaHostRegister",
            "cudaHostUnregister",
            "cudaIpcCloseMemHandle",
            "cudaMemcpyAsync",
            "cudaMemcpyBatchAsync",
            "cudaMemset",
            "cudaStreamBeginCapture",
            "cudaStreamDestroy",
            "cudaStreamSynchronize",
            "cudaStreamWaitEvent",
        ],
        0,
    ),
    **dict.fromkeys(
        [
            "cudaEventCreateWithFlags",
            "cudaEventElapsedTime",
            "cudaGraphInstantiate",
            "cudaHostAlloc",
            "cudaIpcOpenMemHandle",
            "cudaMalloc",
            "cudaStreamCreateWithFlags",
            "cudaStreamCreateWithPriority",
            "cudaStreamEndCapture",
            "cudaGetDeviceProperties",
            "cudaDriverGetVersion",
            "cudaRuntimeGetVersion",
        ],
        1,
    ),
    **dict.fromkeys(["cudaMemGetInfo", "cudaDeviceGetStreamPriorityRange"], 2),
}

_HANDLES_AT = {
    # name: which arguments are streams, events or graphs
    **dict.fromkeys(
        [
            "cudaEventDestroy",
            "cudaEventQuery",
            "cudaEventSynchronize",
            "cudaGraphExecDestroy",
            "cudaStreamBeginCapture",
            "cudaStreamDestroy",
            "cudaStreamEndCapture",
            "cudaStreamSynchronize",
        ],
        (0,),
    ),
    **dict.fromkeys(["cudaEventElapsedTime", "cudaEventRecord", "cudaGraphLaunch", "cudaStreamWaitEvent"], (0, 1)),
    "cudaMemcpyAsync": (4,),
    "cudaMemcpyBatchAsync": (7,),
}

_WITHOUT_A_GPU = frozenset(
    {"cudaInitDevice", "cudaSetDevice", "cudaDriverGetVersion", "cudaRuntimeGetVersion", "cudaGetDeviceProperties"}
)


class CUresult(enum.IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_NOT_FOUND = 500


class FakeDriver:
    """The used part of cuda.bindings.driver, over the same memory."""

    def __init__(self, runtime):
        self._runtime = runtime

    def cuMemGetAddressRange(self, address):
        opened = [self._runtime.exported[handle] for handle in self._runtime.mapped]
        for allocation in (*self._runtime.memory.values(), *opened):
            if allocation.side == "device" and allocation.holds(address, 0):
                return (CUresult.CUDA_SUCCESS, allocation.address, allocation.nbytes)
        return (CUresult.CUDA_ERROR_NOT_FOUND, None, None)


def install(monkeypatch, fake):
    """Let engines import the stand-in instead of the binding until `uninstall`."""
    bindings = types.ModuleType("cuda.bindings")
    bindings.runtime, bindings.driver = fake, FakeDriver(fake)
    for name in OURS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "cuda", types.ModuleType("cuda"))
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)


def uninstall():
    """Forget the modules that have imported the stand-in."""
    for name in OURS:
        sys.modules.pop(name, None)

"""A stand-in for cuda.bindings.runtime: host memory, work done when enqueued, errors on demand.

It proves that our calls, checks and translations fit together; what the real binding calls things is checked against
the real binding (tests/heavy/vendor), and what a GPU does on a GPU (tests/gpu).
"""
# ruff: noqa: N801, N802, N815 - the names are CUDA's

import ctypes
import enum
import itertools


class cudaError_t(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorInvalidDevice = 101
    cudaErrorInvalidResourceHandle = 400
    cudaErrorNotReady = 600
    cudaErrorIllegalAddress = 700
    cudaErrorStreamCaptureInvalidated = 901


class cudaMemcpyKind(enum.IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


class cudaStreamCaptureMode(enum.IntEnum):
    cudaStreamCaptureModeThreadLocal = 1


class Properties:
    name = b"Fake GPU"
    major, minor = 9, 0
    totalGlobalMem = 1 << 30


class FakeCudart:
    """The module. `sticky` makes every call fail from then on; `fail` names the next result of one call."""

    cudaError_t, cudaMemcpyKind, cudaStreamCaptureMode = cudaError_t, cudaMemcpyKind, cudaStreamCaptureMode
    cudaEventBlockingSync, cudaStreamNonBlocking, cudaHostAllocPortable = 1, 1, 1
    cudaDeviceScheduleBlockingSync, cudaInitDeviceFlagsAreValid = 4, 1

    def __init__(self, gpus: int = 1, free_bytes: int = 1 << 30) -> None:
        self.gpus, self.free_bytes = gpus, free_bytes
        self.sticky = cudaError_t.cudaSuccess
        self.fail: dict[str, cudaError_t] = {}
        self.memory: dict[int, object] = {}
        self.events: dict[int, int] = {}
        self.open: set[int] = set()
        self.launches = 0
        self._ids, self._time = itertools.count(1), itertools.count(1)

    def __getattr__(self, name):
        if name not in _CALLS:
            raise AttributeError(name)

        def call(*arguments):
            if self.sticky:
                return (self.sticky, *[None] * _CALLS[name])
            if name in self.fail:
                return (self.fail.pop(name), *[None] * _CALLS[name])
            value = getattr(self, f"_{name}", lambda *_: ())(*arguments)
            return (cudaError_t.cudaSuccess, *value)

        return call

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
        return (number,)

    _cudaStreamCreateWithPriority = _cudaEventCreateWithFlags = _cudaGraphInstantiate = _cudaStreamEndCapture = _new

    def _close(self, handle):
        self.open.remove(handle)
        return ()

    _cudaStreamDestroy = _cudaEventDestroy = _cudaGraphDestroy = _cudaGraphExecDestroy = _close

    def _allocate(self, nbytes, *_):
        block = (ctypes.c_uint8 * (nbytes + 256))()
        address = -(-ctypes.addressof(block) // 256) * 256
        self.memory[address] = block
        return (address,)

    _cudaMalloc = _cudaHostAlloc = _allocate

    def _free(self, address):
        del self.memory[address]
        return ()

    _cudaFree = _cudaFreeHost = _free

    def _cudaMemcpyAsync(self, target, source, nbytes, *_):
        ctypes.memmove(target, source, nbytes)
        return ()

    def _cudaEventRecord(self, event, _stream):
        self.events[event] = next(self._time)
        return ()

    def _cudaEventElapsedTime(self, first, second):
        return (float(self.events[second] - self.events[first]),)

    def _cudaMemGetInfo(self):
        return (self.free_bytes, 1 << 30)

    def _cudaDeviceGetStreamPriorityRange(self):
        return (0, -5)

    def _cudaGetDeviceProperties(self, _index):
        return (Properties(),)

    def _cudaDriverGetVersion(self):
        return (13000,)

    _cudaRuntimeGetVersion = _cudaDriverGetVersion

    def _cudaGraphLaunch(self, *_):
        self.launches += 1
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
            "cudaMemcpyAsync",
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
            "cudaMalloc",
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

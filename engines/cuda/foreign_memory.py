"""Device memory of another process, by CUDA's interprocess handles (cudaIpcMemHandle_t).

A handle stands for a whole allocation, and CUDA does not check the size that a caller assumes. So this module queries
the size of the allocation when it opens it, and checks every later range against the region: no copy reads beyond it,
for example into memory of this process. Copies go through a stream of the region's own, which is ordered with no other
stream.

Source: CUDA runtime API, "Device Management", cudaIpcOpenMemHandle; CUDA driver API, cuMemGetAddressRange.
"""

import ctypes

import numpy as np
from cuda.bindings import driver

from forebay_server.engines.cuda.calls import check, device_count, runtime
from forebay_server.engines.cuda.errors import no_device_error
from forebay_server.engines.errors import MisuseError
from forebay_server.engines.foreign_memory import HANDLE_BYTES, ForeignMemory
from forebay_server.engines.host_memory import check_range


class CudaForeignMemory:
    """See the module and the contract.

    Args:
        handle: 64 bytes that the owner got from cudaIpcGetMemHandle.
        index: of the GPU that has the memory.
        nbytes: size of the opened part, from the beginning of the allocation.

    Raises:
        BackendUnavailableError: no GPU, or none of that number.
        MisuseError: no such handle, or the allocation is smaller.
        ExecutionError, DeviceLostError: CUDA refuses.
    """

    def __init__(self, *, handle: bytes, index: int, nbytes: int) -> None:
        count = device_count()
        if not 0 <= index < count:
            raise no_device_error("cudaErrorInvalidDevice", f"there is no GPU {index}; this machine has 0..{count - 1}")
        if len(handle) != HANDLE_BYTES:
            raise MisuseError(f"a handle has {HANDLE_BYTES} bytes, not {len(handle)}")
        self.nbytes = nbytes
        self._index = index
        self._is_closed = False
        self._attach()
        opened = runtime.cudaIpcMemHandle_t()
        ctypes.memmove(opened.getPtr(), handle, HANDLE_BYTES)
        flags = runtime.cudaIpcMemLazyEnablePeerAccess
        self._address = int(check(runtime.cudaIpcOpenMemHandle(opened, flags), "cudaIpcOpenMemHandle"))
        try:
            self._check_size()
            self._stream = check(
                runtime.cudaStreamCreateWithFlags(runtime.cudaStreamNonBlocking), "cudaStreamCreateWithFlags"
            )
        except BaseException:
            runtime.cudaIpcCloseMemHandle(self._address)
            raise

    def read(self, offset: int, nbytes: int) -> memoryview:
        """Return a copy of a range."""
        check_range("read of foreign memory", self.nbytes, offset, nbytes)
        target = np.empty(nbytes, np.uint8)
        kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._copy(int(target.ctypes.data), self._address + offset, nbytes, kind)
        return target.data

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Copy `data` into a range."""
        check_range("write to foreign memory", self.nbytes, offset, len(data))
        source = np.frombuffer(data, np.uint8)
        kind = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._copy(self._address + offset, int(source.ctypes.data), len(data), kind)

    def close(self) -> None:
        """Unmap it."""
        if not self._is_closed:
            self._is_closed = True
            runtime.cudaSetDevice(self._index)
            runtime.cudaStreamDestroy(self._stream)
            runtime.cudaIpcCloseMemHandle(self._address)

    def _attach(self) -> None:
        check(runtime.cudaSetDevice(self._index), "cudaSetDevice")

    def _check_size(self) -> None:
        code, base, size = driver.cuMemGetAddressRange(self._address)
        if int(code) != 0:
            raise MisuseError(f"the size of the allocation is not known (cuMemGetAddressRange: {code.name})")
        end = int(base) + int(size) - self._address
        if self.nbytes > end:
            raise MisuseError(f"the allocation has {end} bytes, not {self.nbytes}")

    def _copy(self, target: int, source: int, nbytes: int, kind: object) -> None:
        if self._is_closed:
            raise MisuseError("foreign memory used after close")
        if nbytes:
            self._attach()
            check(runtime.cudaMemcpyAsync(target, source, nbytes, kind, self._stream), "cudaMemcpyAsync")
            check(runtime.cudaStreamSynchronize(self._stream), "cudaStreamSynchronize")


def _conforms(memory: CudaForeignMemory) -> ForeignMemory:
    return memory

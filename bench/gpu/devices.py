"""The device to measure on: the GPU with pinned or, for comparison, plain host memory, or the CPU for a dry run."""

from typing import Any

import numpy as np

from forebay_server.engines import open_device
from forebay_server.engines.clock import MonotonicClock
from forebay_server.engines.device import Device


def open_bench_device(name: str, *, is_pinned: bool, index: int = 0) -> Device:
    """Open `cpu`, or the GPU of that index as `cuda`."""
    if name != "cuda" or is_pinned:
        return open_device(name, clock=MonotonicClock(), index=index)
    return _pageable_device()


def _pageable_device() -> Device:
    from forebay_server.engines.cuda.handles import PinnedBuffer
    from forebay_server.engines.device_cuda import CudaDevice

    class PageableBuffer(PinnedBuffer):
        """Plain memory: the driver stages every copy, and the copy returns when that is done."""

        def __init__(self, device: CudaDevice, nbytes: int) -> None:
            self.device = device
            self.is_closed = False
            self._view = np.zeros(nbytes, np.uint8)
            self.address = self._view.ctypes.data
            self.nbytes = nbytes

        def _free(self) -> None:
            self._view = np.zeros(0, np.uint8)

    class PageableDevice(CudaDevice):
        """A GPU whose host buffers are not pinned."""

        def alloc_host(self, nbytes: int) -> Any:  # noqa: ANN401 - a buffer made above
            """Allocate plain memory."""
            return PageableBuffer(self, nbytes)

    return PageableDevice(clock=MonotonicClock())

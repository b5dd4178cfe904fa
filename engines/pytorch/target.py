"""The memory of a PyTorch model's tensors, and the way of its work onto Forebay's device streams: the CPU, or a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from forebay_server.engines.datatypes import BF16
from forebay_server.engines.device import Device, DeviceBuffer, DeviceKind, DeviceStream
from forebay_server.engines.errors import BackendUnavailableError, DeviceMemoryError, EngineError, ExecutionError
from forebay_server.engines.host_memory import memory_of
from forebay_server.engines.pytorch.program import TORCH_DTYPE_BY_NUMPY, first_line

_BITS = np.dtype(np.int16)  # of bfloat16, which the array interface has no name for


class CpuTarget:
    """Tensors on the host device."""

    is_cuda = False
    torch_device = torch.device("cpu")

    def tensor_over(self, buffer: DeviceBuffer, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> torch.Tensor:
        """Return a tensor over the first bytes of `buffer`."""
        nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        return torch.from_numpy(memory_of(buffer)[:nbytes]).view(TORCH_DTYPE_BY_NUMPY[dtype]).reshape(shape)

    @contextmanager
    def current(self, device_stream: DeviceStream) -> Iterator[None]:  # noqa: ARG002
        """Nothing to select."""
        yield

    def error_for(self, error: Exception, batch_size: int) -> EngineError:
        """Translate an exception of torch."""
        return ExecutionError(f"batch of {batch_size} failed: {first_line(error)}")

    def trim(self) -> None:
        """Nothing is cached."""

    def close(self) -> None:
        """Nothing to free."""


@dataclass(frozen=True, slots=True)
class _ArrayInterface:
    """Device memory in a form that torch takes without a copy."""

    __cuda_array_interface__: dict[str, Any]


class CudaTarget:
    """Tensors on a GPU."""

    is_cuda = True

    def __init__(self, device: Device) -> None:
        if not torch.cuda.is_available():
            raise BackendUnavailableError(
                f"this torch ({torch.__version__}) has no CUDA: install the CUDA build, pip install torch"
            )
        self._device = device
        self.torch_device = torch.device("cuda", device.index)
        self._streams: dict[int, Any] = {}
        torch.cuda.set_device(self.torch_device)

    def tensor_over(self, buffer: DeviceBuffer, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> torch.Tensor:
        """Return a tensor over the first bytes of `buffer`."""
        typestr = _BITS.str if dtype == BF16 else dtype.str
        interface = {"shape": shape, "typestr": typestr, "data": (buffer.address, False), "version": 2}
        return torch.as_tensor(_ArrayInterface(interface), device=self.torch_device).view(TORCH_DTYPE_BY_NUMPY[dtype])

    @contextmanager
    def current(self, device_stream: DeviceStream) -> Iterator[None]:
        """Make Forebay's device stream torch's current one."""
        handle = device_stream.handle
        if handle not in self._streams:
            self._streams[handle] = torch.cuda.ExternalStream(handle, device=self.torch_device)
        with torch.cuda.stream(self._streams[handle]):
            yield

    def error_for(self, error: Exception, batch_size: int) -> EngineError:
        """Translate an exception of torch; a sticky error means that the device is lost."""
        try:
            self._device.raise_if_lost()
        except EngineError as lost:
            return lost
        if isinstance(error, torch.cuda.OutOfMemoryError):
            return DeviceMemoryError(f"{self._device.name} is full: {first_line(error)}: use fewer instances or rows")
        return ExecutionError(f"batch of {batch_size} failed: {first_line(error)}")

    def trim(self) -> None:
        """Return memory that torch caches to the GPU. Waits for the device."""
        torch.cuda.empty_cache()

    def close(self) -> None:
        """Forget streams and return cached memory."""
        self._streams.clear()
        self.trim()


def open_target(device: Device) -> CpuTarget | CudaTarget:
    """Return the target for tensors of a model on `device`. Raises BackendUnavailableError."""
    if device.kind == DeviceKind.CPU:
        return CpuTarget()
    if device.kind == DeviceKind.CUDA:
        return CudaTarget(device)
    raise BackendUnavailableError(f"backend 'torch' runs on 'cpu' and 'cuda', not on {device.name!r}")

"""GPU memory of another process: opened by a handle from its owner, copied, closed.

The contract only. The service reaches it through `engines.open_foreign_memory()`; `engines.cuda.foreign_memory` is the
implementation.
"""

from typing import Protocol

HANDLE_BYTES = 64
"""A cudaIpcMemHandle_t. Source: CUDA runtime API, CUDA_IPC_HANDLE_SIZE."""


class ForeignMemory(Protocol):
    """An opened region. Thread: one at a time.

    Its owner keeps the memory alive and orders its own work with this process's.
    """

    @property
    def nbytes(self) -> int:
        """Size in bytes, as opened."""
        ...

    def read(self, offset: int, nbytes: int) -> memoryview:
        """Return a copy of bytes `offset` .. `offset + nbytes`, owned by the caller. Blocks: until it is copied.

        Raises: MisuseError for a range outside, ExecutionError, DeviceLostError.
        """
        ...

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Copy `data` to `offset`. Blocks: until it is copied. Raises as `read`."""
        ...

    def close(self) -> None:
        """Unmap it; the owner's memory stays. Idempotent."""
        ...

"""The memory account: what every model version needs, so that a load which cannot fit is refused before it allocates.

Counted are the slots of every instance, the model file once per instance, and on a GPU the frame arena, which is pinned
there; on the CPU the arena is touched on first use only, and permits bound what all models touch together. What an
engine allocates for itself is not known beforehand and not counted: the account refuses what is certainly too much.

Thread: any; a lock guards the books.
"""

import threading
from collections.abc import Callable
from pathlib import Path

import psutil

from engines.engine import EngineSpecs
from engines.errors import DeviceMemoryError
from service.pipeline.pipeline import SLOT_COUNT

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
CGROUP_USED = Path("/sys/fs/cgroup/memory.current")
MIB = 1 << 20


def needed_bytes(
    specs: EngineSpecs, *, instances: int, permits: int, model_path: Path | None, is_gpu: bool
) -> dict[str, int]:
    """Return what a version will hold, by what for."""
    row_in = sum(spec.row_bytes for spec in specs.inputs) if specs.is_fixed else 0
    row_out = sum(spec.row_bytes for spec in specs.outputs) if specs.is_fixed else 0
    slots = SLOT_COUNT * instances * specs.max_batch_size * (row_in + row_out)
    return {
        "slots": 2 * slots if is_gpu else slots,
        "model": instances * (model_path.stat().st_size if model_path is not None else 0),
        "frames": permits * row_in if is_gpu else 0,
    }


def free_bytes() -> int:
    """Return what this process may still take: of the machine, or of its container if that is less."""
    free = int(psutil.virtual_memory().available)
    try:
        return min(free, int(CGROUP_LIMIT.read_text()) - int(CGROUP_USED.read_text()))
    except (OSError, ValueError):  # no container, or none with a limit
        return free


class MemoryAccount:
    """See the module.

    Args:
        limit_bytes: most that all versions may hold together; 0 for whatever is free at the moment of loading.
        free: what is free now.
    """

    def __init__(self, limit_bytes: int = 0, free: Callable[[], int] = free_bytes) -> None:
        self._limit_bytes = limit_bytes
        self._free = free
        self._lock = threading.Lock()
        self.reserved_bytes = 0

    def reserve(self, needed: dict[str, int]) -> int:
        """Note that a version holds so much, and return the sum for `give_back`.

        Raises:
            DeviceMemoryError: it does not fit; the message says what for and what to do.
        """
        total = sum(needed.values())
        with self._lock:
            free = self._limit_bytes - self.reserved_bytes if self._limit_bytes else self._free()
            if total > free:
                parts = ", ".join(f"{what} {nbytes / MIB:.0f}" for what, nbytes in needed.items() if nbytes)
                raise DeviceMemoryError(
                    f"needs {total / MIB:.0f} MiB ({parts}), but {max(0, free) / MIB:.0f} MiB are left: lower "
                    "max_batch_size or the count of instance_group, or unload another model"
                )
            self.reserved_bytes += total
        return total

    def give_back(self, nbytes: int) -> None:
        """Note that a version is closed."""
        with self._lock:
            self.reserved_bytes -= nbytes

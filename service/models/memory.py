"""The memory account: the need of every model version, so that a load which cannot fit is refused before it allocates.

The account counts the model file and the files beside it with its name (`model.onnx.data`), once per instance, before
it is opened; then the slots of every instance. On GPUs weights and slots are compared with the free memory of each GPU
at that moment (`check_device`), and the account of the machine's memory has the file once, on its way to the GPUs, the
host's side of the slots, and the frame arena, which is pinned. On the CPU the arena is touched on first use only, and
permits bound the memory that all models touch together. The memory that an engine allocates beside its weights is
unknown beforehand and not counted: the account refuses only models that certainly do not fit. A version that is to
replace another is counted beside it: both exist until the switch.

Thread: any; a lock guards the sums.
"""

import contextlib
import resource
import threading
from collections.abc import Callable
from pathlib import Path

import psutil

from forebay_server.engines.device import Device
from forebay_server.engines.engine import EngineSpecs
from forebay_server.engines.errors import DeviceMemoryError
from forebay_server.service.pictures.device_picture import FilePlace
from forebay_server.service.pipeline.builder import SLOT_COUNT

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
CGROUP_USED = Path("/sys/fs/cgroup/memory.current")
MIB = 1 << 20


def model_bytes(model_path: Path | None, instances: int) -> dict[str, int]:
    """Return the bytes that the weights of a version will hold: each instance has its own."""
    if model_path is None:
        return {}
    files = [path for path in model_path.parent.iterdir() if path.name.startswith(model_path.name) and path.is_file()]
    return {"model": instances * sum(path.stat().st_size for path in files)}


def buffer_bytes(
    specs: EngineSpecs,
    instances: int,
    pinned_frames: int = 0,
    *,
    is_shared: bool = False,
    files: FilePlace | None = None,
) -> dict[str, int]:
    """Return the bytes that the buffers of these instances and frames will hold on one side, by purpose.

    Frames in memory that is shared with front-end processes have room for twice as many, and for their outputs. The
    room for a JPEG file of each frame counts as far as it is beyond the frame's rows.
    """
    if not specs.is_fixed:
        return {}
    row_in = sum(spec.row_bytes for spec in specs.inputs)
    row_out = sum(spec.row_bytes for spec in specs.outputs)
    slots = SLOT_COUNT * instances * specs.max_batch_size * (row_in + row_out)
    frames = pinned_frames * (2 * (row_in + row_out) if is_shared else row_in)
    beyond = 0 if files is None else max(0, files.end - row_in)
    return {"slots": slots, "frames": frames, "files": pinned_frames * (2 if is_shared else 1) * beyond}


def check_device(device: Device, needed: dict[str, int]) -> None:
    """Raise DeviceMemoryError if a device with memory of its own has less than this free; the message names it."""
    device.attach_thread()
    memory = device.memory()
    if memory is not None:
        _check(f"{device.name}: ", needed, memory.total_bytes - memory.used_bytes)


def _check(where: str, needed: dict[str, int], free_bytes: int) -> None:
    total = sum(needed.values())
    if total > free_bytes:
        parts = ", ".join(f"{what} {nbytes / MIB:.0f}" for what, nbytes in needed.items() if nbytes)
        raise DeviceMemoryError(
            f"{where}needs {total / MIB:.0f} MiB ({parts}), but {max(0, free_bytes) / MIB:.0f} MiB are left: lower "
            "max_batch_size or the count of instance_group, or unload another model"
        )


def free_bytes() -> int:
    """Return the memory that this process may still allocate: of the machine, or of its limit if that is less."""
    free = int(psutil.virtual_memory().available)
    limited = limited_bytes()
    return free if limited is None else min(free, limited)


def limited_bytes() -> int | None:
    """Return the memory that the limit of the container or of the process (`ulimit -v`) leaves; None without one."""
    left: list[int] = []
    with contextlib.suppress(OSError, ValueError):  # no container, or none with a limit
        left.append(int(CGROUP_LIMIT.read_text()) - int(CGROUP_USED.read_text()))
    soft_limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft_limit != resource.RLIM_INFINITY:
        left.append(soft_limit - psutil.Process().memory_info().vms)
    return max(0, min(left)) if left else None


class MemoryAccount:
    """See the module.

    Args:
        limit_bytes: maximum of all versions together; 0 for the free memory at the time of loading.
        free: returns the free memory now.
    """

    def __init__(self, limit_bytes: int = 0, free: Callable[[], int] = free_bytes) -> None:
        self._limit_bytes = limit_bytes
        self.free = free
        self._lock = threading.Lock()
        self.reserved_bytes = 0

    def open(self) -> "Holding":
        """Return the account of one version."""
        return Holding(self)

    def reserve(self, needed: dict[str, int]) -> int:
        """Add to a version's memory, and return the sum.

        Raises:
            DeviceMemoryError: it does not fit; the message names the purpose and a remedy.
        """
        total = sum(needed.values())
        with self._lock:
            _check("", needed, self._limit_bytes - self.reserved_bytes if self._limit_bytes else self.free())
            self.reserved_bytes += total
        return total

    def rehearsal_bytes(self) -> int:
        """Return the limit of one load: the rest of `limit_bytes`; without a limit, half of the free memory.

        The other half is for the serving models meanwhile, because the memory of models has no limit then.
        """
        with self._lock:
            left = self._limit_bytes - self.reserved_bytes if self._limit_bytes else self.free() // 2
        return max(0, left)

    def give_back(self, nbytes: int) -> None:
        """Subtract from the sum."""
        with self._lock:
            self.reserved_bytes -= nbytes


class Holding:
    """The memory of one version. Owner: the thread that opens the version, then the version."""

    def __init__(self, account: MemoryAccount) -> None:
        self._account = account
        self._nbytes = 0

    def take(self, needed: dict[str, int]) -> None:
        """Add to this version's memory. Raises DeviceMemoryError without a change."""
        self._nbytes += self._account.reserve(needed)

    def give_back(self) -> None:
        """Return all of it. Idempotent."""
        nbytes, self._nbytes = self._nbytes, 0
        self._account.give_back(nbytes)

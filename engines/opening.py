"""Opens devices and engines by name, and imports a vendor library no earlier than it is needed.

Import the functions from `forebay_server.engines`.
"""

import difflib
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from forebay_server.engines.backends import BACKENDS, Implementation
from forebay_server.engines.changes import ModelChanges
from forebay_server.engines.clock import Clock
from forebay_server.engines.device import Device
from forebay_server.engines.engine import Engine
from forebay_server.engines.errors import BackendUnavailableError
from forebay_server.engines.extras import install_hint
from forebay_server.engines.foreign_memory import ForeignMemory

__all__ = ["DEVICE_KINDS", "import_engine", "open_device", "open_engine", "open_foreign_memory"]


NO_CHANGES = ModelChanges()
TRAINERS_SUFFIX = ".pt"  # of TorchScript as well, which the backend torch serves
_DEVICES = {
    "cpu": Implementation("forebay_server.engines.device_host", "HostDevice"),
    "cuda": Implementation("forebay_server.engines.device_cuda", "CudaDevice", extra="cuda"),
    "simulated": Implementation("forebay_server.engines.device_simulated", "SimulatedDevice"),
}
_ENGINES = {name: backend.engine for name, backend in BACKENDS.items()}
_FOREIGN_MEMORY = {
    "cuda": Implementation("forebay_server.engines.cuda.foreign_memory", "CudaForeignMemory", extra="cuda"),
}

DEVICE_KINDS = tuple(_DEVICES)


def open_device(kind: str, *, clock: Clock, index: int = 0) -> Device:
    """Open a device. Its class is built as `Class(clock=clock, index=index)`.

    Args:
        kind: one of `DEVICE_KINDS`.
        clock: stamps events where the device has none of its own.
        index: of the device; only CUDA has more than one.

    Raises:
        BackendUnavailableError: unknown kind, or its library or hardware is missing.
    """
    device_class = _load(_DEVICES, "device", kind)
    return cast("Device", device_class(clock=clock, index=index))


def import_engine(backend: str) -> None:
    """Import the library of a backend now. Raises BackendUnavailableError as `open_engine`. Blocks: for a second."""
    _load(_ENGINES, "backend", backend)


def open_engine(
    backend: str,
    *,
    model_path: Path | None,
    device: Device,
    clock: Clock,
    options: Mapping[str, str],
    max_batch_size: int | None,
    changes: ModelChanges = NO_CHANGES,
) -> Engine:
    """Load a model as one instance on `device`. Its class is built with the same keywords, `changes` if there are any.

    Args:
        backend: one of `engines.backends.BACKENDS`.
        model_path: the model file; None for a backend that needs none (simulated).
        device: of the instance; outlives the engine.
        clock: for engines that wait or measure.
        options: the backend's own settings, as text; an unknown one is an error.
        max_batch_size: most rows of one execution; 0 for a model without a batch dimension; None to let the engine
            choose from the model file.
        changes: to the model's file, in memory; for `onnxruntime` alone.

    Raises:
        BackendUnavailableError: unknown backend, or its library or hardware is missing.
        ModelFileError: the file or the options cannot be served.
    """
    try:
        engine_class = _load(_ENGINES, "backend", backend)
    except BackendUnavailableError as error:
        if model_path is None or model_path.suffix != TRAINERS_SUFFIX:
            raise
        raise BackendUnavailableError(f"{error}; if the file is a trainer's checkpoint, export it as ONNX") from error
    changed = {"changes": changes} if changes else {}
    engine = engine_class(
        model_path=model_path, device=device, clock=clock, options=options, max_batch_size=max_batch_size, **changed
    )
    return cast("Engine", engine)


def open_foreign_memory(kind: str, *, handle: bytes, index: int, nbytes: int) -> ForeignMemory:
    """Open memory of another process on one of this machine's devices.

    Args:
        kind: of the device: `cuda`.
        handle: from the memory's owner, `engines.foreign_memory.HANDLE_BYTES` long.
        index: of the device of that kind.
        nbytes: size of the opened part, from the beginning of the memory.

    Raises:
        BackendUnavailableError: no such device, or its library is missing.
        MisuseError: the handle is wrong, or its memory is smaller.
        ExecutionError, DeviceLostError: the device refuses.
    """
    memory_class = _load(_FOREIGN_MEMORY, "device", kind)
    return cast("ForeignMemory", memory_class(handle=handle, index=index, nbytes=nbytes))


def _load(known: Mapping[str, Implementation], what: str, name: str) -> Any:  # noqa: ANN401 - classes of several protocols
    found = known.get(name)
    if found is None:
        nearest = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"choose one of {', '.join(known)}"
        raise BackendUnavailableError(f"unknown {what} {name!r}: {hint}")
    try:
        return getattr(importlib.import_module(found.module), found.class_name)
    except ImportError as error:
        mend = install_hint(found.extra) if found.extra else found.install or "reinstall forebay"
        raise BackendUnavailableError(
            f"{what} {name!r} needs a library that cannot be loaded ({error}): {mend}"
        ) from error

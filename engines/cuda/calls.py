"""Calls of the CUDA runtime: their results, the meaning of their errors, and the list of GPUs.

Every call returns a tuple that starts with a code and never raises; `check` turns a code into an error of this package
by its *name* (engines/cuda/errors). A sticky error is DeviceLostError: the process has to end. The bindings release the
GIL around each call. This is the only module that imports the runtime.

Source: CUDA runtime API 12 and 13; call forms are checked against the binding (tests/heavy/vendor).
"""

from dataclasses import dataclass
from typing import Any

from cuda.bindings import runtime

from forebay_server.engines.cuda.errors import error_for, no_device_error
from forebay_server.engines.errors import EngineError

__all__ = ["GpuInfo", "check", "device_count", "error_of", "gpu_info", "list_gpus", "runtime", "unavailable"]


def check(result: tuple[Any, ...], call: str) -> Any:  # noqa: ANN401 - the bindings have no stubs
    """Return the values of a call's result tuple. Raises by the name of its error code."""
    code = result[0]
    if int(code) != 0:
        raise error_of(code, call)
    return result[1] if len(result) == 2 else result[1:]


def error_of(code: Any, call: str) -> EngineError:  # noqa: ANN401
    """Return the error to raise for `code`, and clear it in CUDA unless it is sticky."""
    runtime.cudaGetLastError()  # clears a non-sticky error, which the next unrelated call would report otherwise
    return error_for(_text(runtime.cudaGetErrorName(code)), _text(runtime.cudaGetErrorString(code)), call)


def _text(result: tuple[Any, Any]) -> str:
    value = result[1]
    return value.decode() if isinstance(value, bytes) else str(value)


@dataclass(frozen=True, slots=True)
class GpuInfo:
    """One GPU, for people and for checking a plan's manifest."""

    index: int
    name: str
    compute_capability: tuple[int, int]
    total_bytes: int
    driver_version: int
    runtime_version: int


def list_gpus() -> list[GpuInfo]:
    """Describe every GPU. Raises BackendUnavailableError with a remedy where there is none."""
    return [gpu_info(index) for index in range(device_count())]


def device_count() -> int:
    """Return the number of GPUs.

    Call it before any other call of CUDA or TensorRT: without a driver, those may crash.
    """
    code, count = runtime.cudaGetDeviceCount()
    if int(code) != 0:
        raise unavailable(code)
    return int(count)


def unavailable(code: Any) -> EngineError:  # noqa: ANN401
    """Return the error for a GPU that cannot be used at all."""
    runtime.cudaGetLastError()
    return no_device_error(_text(runtime.cudaGetErrorName(code)), _text(runtime.cudaGetErrorString(code)))


def gpu_info(index: int) -> GpuInfo:
    """Describe one GPU."""
    properties = check(runtime.cudaGetDeviceProperties(index), "cudaGetDeviceProperties")
    name = properties.name
    return GpuInfo(
        index=index,
        name=name.decode() if isinstance(name, bytes) else str(name),
        compute_capability=(properties.major, properties.minor),
        total_bytes=int(properties.totalGlobalMem),
        driver_version=int(check(runtime.cudaDriverGetVersion(), "cudaDriverGetVersion")),
        runtime_version=int(check(runtime.cudaRuntimeGetVersion(), "cudaRuntimeGetVersion")),
    )

"""The meaning of CUDA's error names. Pure: knows names, not CUDA.

A *sticky* error stays: every later call of the process returns it, so the process has to end (exit code 70). The names
are cudart's (cudaError_t). Source: CUDA Runtime API reference, "Data types used by CUDA Runtime", where sticky errors
are described as leaving "the process in an inconsistent state".
"""

from forebay_server.engines.errors import (
    BackendUnavailableError,
    DeviceLostError,
    DeviceMemoryError,
    EngineError,
    ExecutionError,
    MisuseError,
)

STICKY = frozenset(
    {
        "cudaErrorAssert",
        "cudaErrorContained",
        "cudaErrorContextIsDestroyed",
        "cudaErrorCudartUnloading",
        "cudaErrorDevicesUnavailable",
        "cudaErrorECCUncorrectable",
        "cudaErrorExternalDevice",
        "cudaErrorHardwareStackError",
        "cudaErrorIllegalAddress",
        "cudaErrorIllegalInstruction",
        "cudaErrorInvalidAddressSpace",
        "cudaErrorInvalidPc",
        "cudaErrorLaunchFailure",
        "cudaErrorLaunchTimeout",
        "cudaErrorMisalignedAddress",
        "cudaErrorNvlinkUncorrectable",
        "cudaErrorTensorMemoryLeak",
        "cudaErrorUnknown",
    }
)

OUT_OF_MEMORY = frozenset({"cudaErrorMemoryAllocation"})

MISUSE = frozenset(
    {
        "cudaErrorInvalidDevice",
        "cudaErrorInvalidMemcpyDirection",
        "cudaErrorInvalidResourceHandle",
        "cudaErrorInvalidValue",
        "cudaErrorNotReady",
        "cudaErrorStreamCaptureUnsupported",
    }
)

_NO_DEVICE = {
    "cudaErrorInsufficientDriver": "no NVIDIA driver, or one older than this CUDA runtime: install driver 580 or newer "
    "for CUDA 13, or the cuda-bindings 12 release for driver 525 to 579",
    "cudaErrorNoDevice": "the NVIDIA driver sees no GPU: check `nvidia-smi`, CUDA_VISIBLE_DEVICES, and that the "
    "container was started with GPUs (docker run --gpus all)",
    "cudaErrorDevicesUnavailable": "the GPU is busy: another process holds it in exclusive mode",
    "cudaErrorSystemDriverMismatch": "the NVIDIA driver and its user library differ in version: restart the machine",
    "cudaErrorSystemNotReady": "the NVIDIA fabric manager or driver is still starting: try again in a minute",
    "cudaErrorCompatNotSupportedOnDevice": "the CUDA compatibility package does not know this GPU: update the driver",
}


def no_device_error(name: str, text: str) -> BackendUnavailableError:
    """Return the error for a device that cannot be opened: one line with a remedy."""
    return BackendUnavailableError(f"device 'cuda' is not available: {_NO_DEVICE.get(name, f'{text} ({name})')}")


def error_for(name: str, text: str, call: str) -> EngineError:
    """Return the error to raise when `call` answered with the CUDA error `name`, described by `text`."""
    message = f"{call}: {text} ({name})"
    if name in STICKY:
        return DeviceLostError(message)
    if name in OUT_OF_MEMORY:
        return DeviceMemoryError(message)
    if name in MISUSE:
        return MisuseError(message)
    return ExecutionError(message)

"""Compiling a kernel for one kind of GPU (NVRTC), loading it, and launching it on a device stream.

The only module that imports the driver's and NVRTC's bindings. Compiling takes about a second, once for each compute
capability of a process. Thread: any that is attached to the device; a kernel belongs to the device that was current.
"""

import ctypes
import functools
from collections.abc import Sequence
from typing import Any

from cuda.bindings import driver, nvrtc

from forebay_server.engines.errors import BackendUnavailableError, ExecutionError

_TYPES = ctypes.c_void_p


class Kernel:
    """One loaded kernel.

    Args:
        source: of the module, CUDA C++ without includes.
        name: of the kernel, declared `extern "C"`.
        capability: compute capability of the current device.

    Raises:
        BackendUnavailableError: it cannot be compiled or loaded; the message says why.
    """

    def __init__(self, source: str, name: str, capability: tuple[int, int]) -> None:
        code, self._module = driver.cuModuleLoadData(compiled(source, name, capability))
        if int(code) != 0:
            raise BackendUnavailableError(f"kernel {name!r} cannot be loaded ({_name_of(code)})")
        code, self._function = driver.cuModuleGetFunction(self._module, name.encode())
        if int(code) != 0:
            raise BackendUnavailableError(f"kernel {name!r} is not in its module ({_name_of(code)})")
        self._name = name

    def launch(self, grid: tuple[int, int, int], block: tuple[int, int], stream: int, arguments: Sequence[int]) -> None:
        """Enqueue one run.

        Args:
            grid: blocks in x, y and z.
            block: threads in x and y.
            stream: cudaStream_t.
            arguments: addresses in host memory of the kernel's arguments, which are copied now.

        Raises:
            ExecutionError: it was not enqueued.
        """
        pointers = (_TYPES * len(arguments))(*arguments)
        (code,) = driver.cuLaunchKernel(
            self._function, *grid, *block, 1, 0, driver.CUstream(stream), ctypes.addressof(pointers), 0
        )
        if int(code) != 0:
            raise ExecutionError(f"kernel {self._name!r} was not enqueued ({_name_of(code)})")

    def close(self) -> None:
        """Unload it; nothing of it runs any more."""
        driver.cuModuleUnload(self._module)


@functools.cache
def compiled(source: str, name: str, capability: tuple[int, int]) -> bytes:
    """Return a kernel as machine code. Blocks: a second the first time. Raises BackendUnavailableError."""
    try:
        code, program = nvrtc.nvrtcCreateProgram(source.encode(), f"{name}.cu".encode(), 0, [], [])
    except RuntimeError as error:  # the binding did not find the library
        raise BackendUnavailableError(f"NVRTC cannot be loaded ({error})") from error
    if int(code) != 0:
        raise BackendUnavailableError(f"NVRTC is not usable ({_text(nvrtc.nvrtcGetErrorString(code))})")
    try:
        # Products and sums are not fused: the arithmetic is that of the CPU's way.
        options = [f"--gpu-architecture=sm_{capability[0]}{capability[1]}".encode(), b"--fmad=false"]
        (code,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
        if int(code) != 0:
            raise BackendUnavailableError(
                f"NVRTC cannot compile for compute capability {capability[0]}.{capability[1]}: {_log_of(program)[:300]}"
            )
        code, size = nvrtc.nvrtcGetCUBINSize(program)
        machine_code = bytearray(size)
        (code,) = nvrtc.nvrtcGetCUBIN(program, machine_code)
        if int(code) != 0:
            raise BackendUnavailableError(f"NVRTC gave no machine code ({_text(nvrtc.nvrtcGetErrorString(code))})")
        return bytes(machine_code)
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _log_of(program: Any) -> str:  # noqa: ANN401 - the bindings have no stubs
    _, size = nvrtc.nvrtcGetProgramLogSize(program)
    log = bytearray(size)
    nvrtc.nvrtcGetProgramLog(program, log)
    return log.decode(errors="replace").strip("\0 \n")


def _text(result: tuple[Any, Any]) -> str:
    value = result[1]
    return value.decode() if isinstance(value, bytes) else str(value)


def _name_of(code: Any) -> str:  # noqa: ANN401
    return _text(driver.cuGetErrorName(code))

"""GPUs as the driver sees them: use, memory, power, energy, for the nv_gpu_* metrics. Through nvidia-ml-py (`pynvml`).

Optional: without the library, the driver, or a GPU there are no such metrics. All GPUs of the machine are read, of all
processes together, also those that `CUDA_VISIBLE_DEVICES` hides.

Contract of the library (NVML API reference, r535 and later)
    `nvmlInit` raises NVMLError if there is no driver. `nvmlDeviceGetHandleByIndex` takes 0 to `nvmlDeviceGetCount` - 1.
    `nvmlDeviceGetUUID` returns text (bytes before release 12). `nvmlDeviceGetUtilizationRates().gpu`: percent of the
    last sample period (1/6 to 1 s) in which a kernel ran. `nvmlDeviceGetMemoryInfo()`: `total` and `used` in bytes.
    `nvmlDeviceGetPowerUsage` and `nvmlDeviceGetEnforcedPowerLimit`: milliwatts.
    `nvmlDeviceGetTotalEnergyConsumption`: millijoules since the driver was loaded; Volta and later. A number that a
    device does not have raises NVMLError (not supported): it is left out.

Not run on a GPU yet: the names are looked up in the real library, and the arithmetic runs on a stand-in.

Owner: the observer's thread; a call takes up to some ms.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MILLI = 1e-3
PERCENT = 1e-2


@dataclass(frozen=True, slots=True)
class GpuNumbers:
    """One GPU at one time. None for numbers that it does not have.

    Attributes:
        uuid: of the GPU.
        utilization: 0 to 1.
        memory_total_bytes: of the GPU.
        memory_used_bytes: by all processes.
        power_w: now.
        power_limit_w: as enforced.
        energy_j: since `Gpus` was made, as with Triton.
    """

    uuid: str
    utilization: float | None
    memory_total_bytes: int | None
    memory_used_bytes: int | None
    power_w: float | None
    power_limit_w: float | None
    energy_j: float | None


class Gpus:
    """See the module.

    Args:
        nvml: the module `pynvml`, initialised.
    """

    def __init__(self, nvml: Any) -> None:  # noqa: ANN401 - a module
        self._nvml = nvml
        self._handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        self._uuids = [_text(nvml.nvmlDeviceGetUUID(handle)) for handle in self._handles]
        self._energy_before = [self._scaled(nvml.nvmlDeviceGetTotalEnergyConsumption, each) for each in self._handles]

    def read(self) -> list[GpuNumbers]:
        """Return the numbers of every GPU."""
        return [self._read(index) for index in range(len(self._handles))]

    def _read(self, index: int) -> GpuNumbers:
        nvml, handle, before = self._nvml, self._handles[index], self._energy_before[index]
        rates = self._asked(nvml.nvmlDeviceGetUtilizationRates, handle)
        memory = self._asked(nvml.nvmlDeviceGetMemoryInfo, handle)
        energy = self._scaled(nvml.nvmlDeviceGetTotalEnergyConsumption, handle)
        return GpuNumbers(
            self._uuids[index],
            None if rates is None else rates.gpu * PERCENT,
            None if memory is None else int(memory.total),
            None if memory is None else int(memory.used),
            self._scaled(nvml.nvmlDeviceGetPowerUsage, handle),
            self._scaled(nvml.nvmlDeviceGetEnforcedPowerLimit, handle),
            None if energy is None or before is None else max(0.0, energy - before),
        )

    def _scaled(self, ask: Callable[[Any], Any], handle: Any) -> float | None:  # noqa: ANN401 - the library's
        found = self._asked(ask, handle)
        return None if found is None else float(found) * MILLI

    def _asked(self, ask: Callable[[Any], Any], handle: Any) -> Any:  # noqa: ANN401 - the library's
        try:
            return ask(handle)
        except self._nvml.NVMLError:  # not supported, or the GPU is lost, which the engines report
            return None


def open_gpus() -> Gpus | None:
    """Return the GPUs of this machine; None without the library, a driver or a GPU."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
        gpus = Gpus(nvml)
    except nvml.NVMLError:
        return None
    return gpus if gpus.read() else None


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value

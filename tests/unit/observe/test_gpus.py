"""GPUs through nvidia-ml-py: a stand-in with its documented names and units, and the real library if installed."""

import importlib.util
import sys
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from forebay_server.service.observe import gpus as gpus_module
from forebay_server.service.observe.gpus import GpuNumbers, Gpus, open_gpus
from forebay_server.service.observe.metrics import render

CALLS = (
    "nvmlInit",
    "nvmlDeviceGetCount",
    "nvmlDeviceGetHandleByIndex",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetPowerUsage",
    "nvmlDeviceGetEnforcedPowerLimit",
    "nvmlDeviceGetTotalEnergyConsumption",
    "NVMLError",
)


class Driver:
    """The library with two GPUs; the second knows nothing of power and energy, as a laptop's."""

    class NVMLError(Exception):
        """The library's."""

    def __init__(self, *, has_driver=True):
        self.energy_mj = 5_000_000
        self._has_driver = has_driver

    def nvmlInit(self):  # noqa: N802
        if not self._has_driver:
            raise self.NVMLError("Driver Not Loaded")

    def nvmlDeviceGetCount(self):  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return index

    def nvmlDeviceGetUUID(self, handle):  # noqa: N802
        return ("GPU-a", b"GPU-b")[handle]

    def nvmlDeviceGetUtilizationRates(self, handle):  # noqa: N802
        return SimpleNamespace(gpu=73, memory=20)

    def nvmlDeviceGetMemoryInfo(self, handle):  # noqa: N802
        return SimpleNamespace(total=80 << 30, used=3 << 30, free=77 << 30)

    def nvmlDeviceGetPowerUsage(self, handle):  # noqa: N802
        return self._of_first(handle, 412_500)

    def nvmlDeviceGetEnforcedPowerLimit(self, handle):  # noqa: N802
        return self._of_first(handle, 700_000)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):  # noqa: N802
        return self._of_first(handle, self.energy_mj)

    def _of_first(self, handle, value):
        if handle:
            raise self.NVMLError("Not Supported")
        return value


def test_numbers_are_in_the_units_of_their_names():
    driver = Driver()
    gpus = Gpus(driver)
    driver.energy_mj += 2_500
    first, second = gpus.read()
    assert first == GpuNumbers("GPU-a", 0.73, 80 << 30, 3 << 30, 412.5, 700.0, 2.5)
    assert second == GpuNumbers("GPU-b", 0.73, 80 << 30, 3 << 30, None, None, None)


def test_metrics_have_the_names_and_the_label_of_triton_and_leave_out_what_is_not_known():
    found = {each.name: each.samples for each in text_string_to_metric_families(render([], Gpus(Driver()).read()))}
    assert {name for name in found if name.startswith(("nv_gpu", "nv_energy"))} == {
        "nv_gpu_utilization",
        "nv_gpu_memory_total_bytes",
        "nv_gpu_memory_used_bytes",
        "nv_gpu_power_usage",
        "nv_gpu_power_limit",
        "nv_energy_consumption",
    }
    assert [(s.labels, s.value) for s in found["nv_gpu_power_usage"]] == [({"gpu_uuid": "GPU-a"}, 412.5)]
    assert [s.labels["gpu_uuid"] for s in found["nv_gpu_utilization"]] == ["GPU-a", "GPU-b"]


def test_there_are_no_gpu_metrics_without_the_library_or_the_driver(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert open_gpus() is None
    monkeypatch.setitem(sys.modules, "pynvml", Driver(has_driver=False))
    assert open_gpus() is None
    monkeypatch.setitem(sys.modules, "pynvml", Driver())
    assert len(open_gpus().read()) == 2
    assert "nv_gpu" not in render([])


@pytest.mark.skipif(importlib.util.find_spec("pynvml") is None, reason="nvidia-ml-py is not installed")
def test_the_real_library_has_every_name_and_a_machine_without_a_driver_has_no_gpus():
    nvml = gpus_module.importlib.import_module("pynvml")
    assert [name for name in CALLS if not hasattr(nvml, name)] == []
    found = open_gpus()
    assert found is None or found.read()

"""NVTX ranges: off unless asked for, and then named."""

import sys
import types
from contextlib import nullcontext

import pytest

from forebay_server.engines import open_device
from forebay_server.engines.clock import MonotonicClock
from forebay_server.engines.errors import BackendUnavailableError
from forebay_server.engines.ranges import open_ranges
from tests.support import models
from tests.support.rig import rig_of


def test_ranges_are_off_by_default_and_where_nvtx_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "nvtx", None)
    for environment in ({}, {"FOREBAY_NVTX": "0"}, {"FOREBAY_NVTX": "1"}):
        assert open_ranges(environment) is None


def test_a_range_has_the_name_it_was_opened_with(monkeypatch):
    opened = []
    nvtx = types.ModuleType("nvtx")
    nvtx.annotate = lambda name, domain: opened.append((name, domain)) or nullcontext()
    monkeypatch.setitem(sys.modules, "nvtx", nvtx)
    with open_ranges({"FOREBAY_NVTX": "1"})("lane.h2d batch 3 of 4"):
        pass
    assert opened == [("lane.h2d batch 3 of 4", "forebay")]


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_an_onnx_runtime_provider_that_is_not_there_is_refused_instead_of_replaced(tmp_path, provider):
    path = models.save(models.identity(), tmp_path / "model.onnx")
    with (
        rig_of(open_device("cpu", clock=MonotonicClock())) as rig,
        pytest.raises(BackendUnavailableError, match=r"install|driver"),
    ):
        rig.open_engine("onnxruntime", path, options={"provider": provider})

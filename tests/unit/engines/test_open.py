"""Opening devices and engines by name."""

from pathlib import Path

import pytest

from forebay_server.engines import open_device, opening
from forebay_server.engines.backends import Implementation
from forebay_server.engines.errors import BackendUnavailableError, EngineError, ModelFileError
from tests.support.clock import ManualClock
from tests.support.rig import rig_of


def open_backend(backend, device="cpu"):
    with rig_of(open_device(device, clock=ManualClock())) as rig:
        rig.open_engine(backend, None)


def test_an_unknown_device_or_backend_names_the_nearest():
    with pytest.raises(BackendUnavailableError, match="did you mean 'simulated'"):
        open_device("simulate", clock=ManualClock())
    with pytest.raises(BackendUnavailableError, match="did you mean 'onnxruntime'"):
        open_backend("onnxruntim")
    with pytest.raises(BackendUnavailableError, match="choose one of onnxruntime"):
        open_backend("?")


def test_a_library_that_is_not_installed_is_named_with_how_to_get_it(monkeypatch):
    entry = Implementation("engines.no_such_module", "X", extra="torch")
    monkeypatch.setitem(opening._ENGINES, "absent", entry)
    with pytest.raises(BackendUnavailableError, match=r"no_such_module.*pip install '\.\[torch\]'"):
        open_backend("absent")


@pytest.mark.parametrize(("filename", "is_hinted"), [("best.pt", True), ("best.pt2", False)])
def test_a_trainers_checkpoint_is_better_exported_than_its_library_installed(monkeypatch, filename, is_hinted):
    monkeypatch.setitem(opening._ENGINES, "absent", Implementation("engines.no_such_module", "X", extra="torch"))
    with rig_of(open_device("cpu", clock=ManualClock())) as rig, pytest.raises(BackendUnavailableError) as caught:
        rig.open_engine("absent", Path(filename))
    assert ("export it as ONNX" in str(caught.value)) is is_hinted


def test_onnxruntime_runs_on_the_cpu_only_and_needs_a_file():
    with pytest.raises(BackendUnavailableError, match="KIND_CPU"):
        open_backend("onnxruntime", "simulated")
    with pytest.raises(ModelFileError, match="model file"):
        open_backend("onnxruntime")


def test_the_base_error_is_never_raised_itself():
    with pytest.raises(TypeError):
        EngineError("x")

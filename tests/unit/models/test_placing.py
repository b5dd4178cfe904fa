"""Where a model runs when the device that it asks for cannot be had."""

import pytest

from engines.clock import MonotonicClock
from engines.device_host import HostDevice
from engines.errors import BackendUnavailableError
from service.models.completion import complete
from service.models.config import describe
from service.models.placing import open_placed
from service.models.repository import Repository
from tests.unit.models.test_warmup_samples import specs

CLOCK = MonotonicClock()


def without_a_gpu(kind, clock):
    if kind != "cpu":
        raise BackendUnavailableError("device 'cuda' is not available: the NVIDIA driver sees no GPU")
    return HostDevice(clock=clock)


def description_of(tmp_path, text, filename):
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / filename).touch()
    (tmp_path / "m" / "config.pbtxt").write_text(text)
    return describe(Repository([tmp_path]).model("m"), cpu_fallback=True)


def test_torch_falls_back_to_the_cpu_if_it_may_and_says_so_in_its_configuration(tmp_path):
    description = description_of(tmp_path, "instance_group { kind: KIND_GPU gpus: 1 }", "model.pt2")
    assert description.device == "cuda:1"
    device, placed = open_placed(description, without_a_gpu, CLOCK, cpu_fallback=True)
    assert (device.name, placed.device) == ("cpu", "cpu")
    assert placed.warnings[-1].startswith("m: runs on the CPU: device 'cuda' is not available: ")
    config = complete(placed, specs()).config
    assert [type(config.instance_group[0]).Kind.Name(group.kind) for group in config.instance_group] == ["KIND_CPU"]


@pytest.mark.parametrize(
    ("filename", "cpu_fallback", "words"),
    [
        (
            "model.pt2",
            False,
            "sees no GPU; or write KIND_CPU in instance_group, or start the server with --cpu-fallback",
        ),
        ("model.plan", False, "sees no GPU; or plans run on a GPU only; serve the ONNX file on the CPU"),
        ("model.plan", True, "serve the ONNX file on the CPU"),
    ],
)
def test_what_cannot_fall_back_is_refused_with_its_fixes(tmp_path, filename, cpu_fallback, words):
    description = description_of(tmp_path, "instance_group { kind: KIND_GPU }", filename)
    with pytest.raises(BackendUnavailableError) as caught:
        open_placed(description, without_a_gpu, CLOCK, cpu_fallback=cpu_fallback)
    assert words in str(caught.value)


def test_a_cpu_that_cannot_be_had_has_no_substitute(tmp_path):
    def broken(kind, clock):
        raise BackendUnavailableError(kind)

    with pytest.raises(BackendUnavailableError, match=r"^cpu$"):
        open_placed(description_of(tmp_path, "", "model.onnx"), broken, CLOCK, cpu_fallback=True)

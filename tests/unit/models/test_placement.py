"""Where a model runs when the device that it asks for cannot be had."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.engines.clock import MonotonicClock
from forebay_server.engines.device import DeviceKind
from forebay_server.engines.device_host import HostDevice
from forebay_server.engines.device_simulated import Machine, SimulatedDevice
from forebay_server.engines.errors import BackendUnavailableError
from forebay_server.service.models.completion import complete
from forebay_server.service.models.config import describe
from forebay_server.service.models.instances import WHOLE, InstanceGroup, Part, instances_of
from forebay_server.service.models.placement import open_placement
from forebay_server.service.models.repository import Repository
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
    assert [instance.device for instance in description.instances] == ["cuda:1"]
    placement = open_placement(description, without_a_gpu, CLOCK, cpu_fallback=True)
    assert [(device.name, count) for device, count in placement.counts] == [("cpu", 1)]
    assert placement.description.device_kind == "cpu"
    assert placement.description.warnings[-1].startswith("m: runs on the CPU: device 'cuda' is not available: ")
    config = complete(placement.description, specs()).config
    assert [type(config.instance_group[0]).Kind.Name(group.kind) for group in config.instance_group] == ["KIND_CPU"]


@pytest.mark.parametrize(
    ("filename", "cpu_fallback", "words"),
    [
        (
            "model.pt2",
            False,
            "sees no GPU; or write KIND_CPU in instance_group, or start the server with --cpu-fallback",
        ),
        ("model.plan", False, "sees no GPU; or serve the ONNX file on the CPU"),
        ("model.plan", True, "serve the ONNX file on the CPU"),
    ],
)
def test_what_cannot_fall_back_is_refused_with_its_fixes(tmp_path, filename, cpu_fallback, words):
    description = description_of(tmp_path, "instance_group { kind: KIND_GPU }", filename)
    with pytest.raises(BackendUnavailableError) as caught:
        open_placement(description, without_a_gpu, CLOCK, cpu_fallback=cpu_fallback)
    assert words in str(caught.value)


def test_a_cpu_that_cannot_be_had_has_no_substitute(tmp_path):
    def broken(kind, clock):
        raise BackendUnavailableError(kind)

    with pytest.raises(BackendUnavailableError, match=r"^cpu$"):
        open_placement(description_of(tmp_path, "", "model.onnx"), broken, CLOCK, cpu_fallback=True)


def gpus_of_one_machine(opened, count, broken=()):
    machine = Machine(count)

    def open_gpu(kind, clock):
        index = int(kind.removeprefix("cuda:"))
        if index in broken:
            raise BackendUnavailableError(f"there is no GPU {index}")
        opened.append(Gpu(clock=clock, index=index, machine=machine))
        return opened[-1]

    return open_gpu


class Gpu(SimulatedDevice):
    is_closed = False

    def close(self):
        self.is_closed = True
        super().close()


def test_devices_are_opened_once_each_and_closed_together(tmp_path):
    opened = []
    text = "instance_group { kind: KIND_GPU gpus: [ 2, 0 ] count: 2 } instance_group { gpus: 2 }"
    description = description_of(tmp_path, text, "model.pt2")
    placement = open_placement(description, gpus_of_one_machine(opened, 3), CLOCK, cpu_fallback=False)
    assert [device.name for device in opened] == ["simulated:2", "simulated"]
    assert [(device.name, count) for device, count in placement.counts] == [("simulated:2", 3), ("simulated", 2)]
    placement.close()
    assert all(device.is_closed for device in opened)


def test_groups_without_gpus_are_on_all_beside_those_that_name_some(tmp_path):
    text = "instance_group { kind: KIND_GPU } instance_group { gpus: 1 count: 2 }"
    description = description_of(tmp_path, text, "model.pt2")
    placement = open_placement(description, gpus_of_one_machine([], 2), CLOCK, cpu_fallback=False)
    assert [(device.name, count) for device, count in placement.counts] == [("simulated", 1), ("simulated:1", 3)]
    config = complete(placement.description, specs()).config
    assert [list(group.gpus) for group in config.instance_group] == [[0, 1], [1]]


def test_one_gpu_that_cannot_be_had_closes_the_others(tmp_path):
    opened = []
    description = description_of(tmp_path, "instance_group { kind: KIND_GPU gpus: [ 0, 1, 7 ] }", "model.pt2")
    with pytest.raises(BackendUnavailableError, match="there is no GPU 7; or write KIND_CPU"):
        open_placement(description, gpus_of_one_machine(opened, 2, broken={7}), CLOCK, cpu_fallback=False)
    assert [device.is_closed for device in opened] == [True, True]


def part_of(description, index, count):
    return replace(description, part=Part(index, count))


@pytest.mark.parametrize(
    ("text", "by_engine"),
    [
        ("instance_group { kind: KIND_GPU }", [{0: 1}, {1: 1}]),
        ("instance_group { kind: KIND_GPU count: 3 }", [{0: 3}, {1: 3}]),
        ("instance_group { kind: KIND_GPU gpus: 1 count: 2 }", [{1: 1}, {1: 2}]),
    ],
)
def test_each_of_two_engine_processes_has_the_instances_on_its_gpu_and_one_at_least(tmp_path, text, by_engine):
    description = description_of(tmp_path, text, "model.pt2")
    for index, wanted in enumerate(by_engine):
        opened = []
        gpus = gpus_of_one_machine(opened, 2)
        placement = open_placement(part_of(description, index, 2), gpus, CLOCK, cpu_fallback=False)
        assert {device.index: count for device, count in placement.counts} == wanted
        assert [device.index for device in opened if not device.is_closed] == list(wanted)


def test_more_engine_processes_than_gpus_share_them(tmp_path):
    description = description_of(tmp_path, "instance_group { kind: KIND_GPU }", "model.pt2")
    opened = []
    gpus = gpus_of_one_machine(opened, 1, broken={1, 2})
    placement = open_placement(part_of(description, 2, 3), gpus, CLOCK, cpu_fallback=False)
    assert [(device.index, count) for device, count in placement.counts] == [(0, 1)]


@given(st.integers(1, 20), st.integers(1, 5))
def test_instances_on_the_cpu_are_dealt_out(instances, engines):
    every = instances_of([InstanceGroup(instances)], DeviceKind.CPU)
    shares = [len(Part(index, engines).of(every)) for index in range(engines)]
    assert sum(shares) == max(instances, engines)
    assert max(shares) - min(shares) <= 1
    assert WHOLE.of(every) == every

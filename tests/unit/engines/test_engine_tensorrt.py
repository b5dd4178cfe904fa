"""The TensorRT engine over a stand-in for the library, on the simulated device under its race checker."""

import sys

import numpy as np
import pytest

from forebay_server.engines import open_engine
from forebay_server.engines.clock import MonotonicClock
from forebay_server.engines.errors import BackendUnavailableError, ExecutionError, ModelFileError, RaceError
from forebay_server.engines.trt import library
from tests.contract.test_engine import *  # noqa: F403 - the contract suite, on the case below
from tests.contract.test_engine import EngineCase, warmed_up_slot
from tests.support import fake_tensorrt
from tests.support.fake_tensorrt import MAX_ROWS, FakeGpu, FakeTensorrt, write_plan
from tests.support.rig import BoundSlot, rig_of


def doubled(inputs):
    return [inputs[0] * 2]


CASES = [
    EngineCase("graphs", "tensorrt", "simulated", doubled, write_plan, {}, None),
    EngineCase("plain", "tensorrt", "simulated", doubled, write_plan, {"cuda_graphs": "off"}, None),
    EngineCase("few-graphs", "tensorrt", "simulated", doubled, write_plan, {"graph_sizes": "2,8"}, MAX_ROWS),
]


@pytest.fixture(params=[case.param for case in CASES])
def case(request):
    return request.param


@pytest.fixture(autouse=True)
def fake_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", FakeTensorrt("tensorrt"))
    monkeypatch.setattr(library, "_loaded", {})
    monkeypatch.setattr(fake_tensorrt, "machine", fake_tensorrt.Machine())


@pytest.fixture
def rig():
    device = FakeGpu()
    with rig_of(device) as rig:
        yield rig
    assert device.races == ()


def open_plan(rig, path, options=None, max_batch_size=None):
    return rig.open_engine("tensorrt", path, options=options, max_batch_size=max_batch_size)


@pytest.mark.parametrize(
    ("options", "sizes", "graph", "plain"),
    [
        ({}, (1, 2, 3, 8), 3, 1),
        ({"cuda_graphs": "off"}, (1, 2, 3, 8), 0, 4),
        ({"graph_sizes": "3"}, (1, 2, 3, 8), 1, 3),
    ],
)
def test_captured_sizes_run_as_graphs_and_others_plainly(rig, tmp_path, options, sizes, graph, plain):
    engine = open_plan(rig, write_plan(tmp_path), options)
    slot = warmed_up_slot(rig, engine)
    for rows in sizes:
        slot.run([np.ones((rows, 4), np.float32)])
    assert (engine.launches.graph, engine.launches.plain) == (graph, plain)


def test_a_plan_that_cannot_be_captured_runs_plainly(rig, tmp_path):
    engine = open_plan(rig, write_plan(tmp_path, fail="capture"))
    slot = warmed_up_slot(rig, engine)
    assert slot.run([np.ones((2, 4), np.float32)])[0].tolist() == [[2.0] * 4] * 2
    assert (engine.launches.graph, engine.launches.plain) == (0, 1)


def test_output_sizes_that_follow_from_the_inputs_are_asked_for(rig, tmp_path):
    engine = open_plan(rig, write_plan(tmp_path, outputs={"y": [-1, -1]}, resolved={"y": [4]}))
    assert engine.specs.outputs[0].shape == (4,)
    assert engine.specs.max_batch_size == MAX_ROWS


def test_layers_are_timed_by_the_librarys_profiler(rig, tmp_path):
    engine = open_plan(rig, write_plan(tmp_path))
    slot = warmed_up_slot(rig, engine)
    assert engine.layer_times(0, 2, slot.compute, 4) == [("double", 0.5), ("cast", 0.25)]


def test_two_compute_streams_that_share_one_activation_memory_are_a_race(tmp_path):
    with rig_of(FakeGpu()) as rig:
        engine = open_plan(rig, write_plan(tmp_path))
        slots = [BoundSlot(rig, engine, index) for index in range(2)]
        engine.warm_up((8,), slots[0].compute)
        assert slots[0].compute is not slots[1].compute
        engine.enqueue(0, 8, slots[0].compute)
        with pytest.raises(RaceError):
            engine.enqueue(1, 8, slots[1].compute)
        for slot in slots:
            slot.compute.sync()


def test_one_compute_stream_may_serve_every_slot(rig, tmp_path):
    engine = open_plan(rig, write_plan(tmp_path))
    slots = [BoundSlot(rig, engine, index) for index in range(3)]
    compute = slots[0].compute
    engine.warm_up((1, 8), compute)
    for rows in (8, 1, 5):
        for slot in slots:
            engine.enqueue(slot.index, rows, compute)
    compute.sync()


@pytest.mark.parametrize("options", [{}, {"cuda_graphs": "off"}])
def test_a_plan_that_leaves_bytes_unwritten_is_refused(rig, tmp_path, options):
    engine = open_plan(rig, write_plan(tmp_path, unwritten=2), options)
    with pytest.raises(ModelFileError, match=r"output 'y': of a batch of 1 rows 2 elements are not written"):
        warmed_up_slot(rig, engine)


@pytest.mark.parametrize("inner", [3, 5])
def test_a_plan_whose_outputs_have_another_size_than_it_says_is_refused(rig, tmp_path, inner):
    engine = open_plan(rig, write_plan(tmp_path, resolved={"y": [inner]}))
    with pytest.raises(ExecutionError, match=rf"output 'y' has shape \(1, {inner}\) for 1 rows"):
        warmed_up_slot(rig, engine)


@pytest.mark.parametrize("fail", ["address", "profile", "shape", "infer", "execute", "context"])
def test_what_the_library_refuses_is_an_error_with_its_reason(rig, tmp_path, fail):
    engine = open_plan(rig, write_plan(tmp_path, fail=fail), {"cuda_graphs": "off"})
    with pytest.raises(ExecutionError, match=r"as asked|execution context"):
        warmed_up_slot(rig, engine)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"location": "HOST"}, "shape tensor"),
        ({"format": "CHW4"}, "linear"),
        ({"dtype": "BF16"}, "BF16"),
        ({"outputs": {"y": [-1, -1]}}, "depends on the data"),
    ],
)
def test_a_plan_that_cannot_be_served_is_refused_by_tensor(rig, tmp_path, settings, complaint):
    with pytest.raises(ModelFileError, match=complaint):
        open_plan(rig, write_plan(tmp_path, **settings))


def test_profiles_that_do_not_cover_max_batch_size_are_refused_with_what_to_do(rig, tmp_path):
    with pytest.raises(ModelFileError, match=r"end at 8 rows.*--max-batch 9"):
        open_plan(rig, write_plan(tmp_path), max_batch_size=9)


def test_the_nearest_profile_runs_a_batch(rig, tmp_path):
    engine = open_plan(rig, write_plan(tmp_path, profiles=[[1, 1, 1], [2, 4, 4], [1, 8, 8]]))
    plan = engine._plan
    assert [plan.profile_for(rows).index for rows in (1, 2, 4, 7, 8)] == [0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("manifest", "complaint"),
    [
        ({"plan_sha256": "0"}, "SHA-256 differs"),
        ({"version": "10.3.0"}, "built with tensorrt 10.3.0"),
        ({"library": "tensorrt-rtx"}, "built with tensorrt-rtx"),
        ({"device": "Other GPU"}, "built for Other GPU"),
    ],
)
def test_a_plan_whose_manifest_does_not_match_is_refused(rig, tmp_path, manifest, complaint):
    path = write_plan(tmp_path, manifest=manifest)
    with pytest.raises(ModelFileError, match=complaint):
        open_plan(rig, path)
    open_plan(rig, path, {"on_mismatch": "ignore"})


def test_a_version_compatible_plan_of_an_older_release_is_trusted(rig, tmp_path):
    open_plan(rig, write_plan(tmp_path, manifest={"version": "10.3.0", "is_version_compatible": True}))


@pytest.mark.parametrize("damage", ["missing", "no json", '{"format": 99}', '{"format": 1}', "[]"])
def test_a_plan_without_a_good_manifest_is_refused(rig, tmp_path, damage):
    path = write_plan(tmp_path)
    manifest = path.with_name("model.plan.json")
    if damage == "missing":
        manifest.unlink()
    else:
        manifest.write_text(damage)
    with pytest.raises(ModelFileError, match=r"model\.plan\.json"):
        open_plan(rig, path)


@pytest.mark.parametrize("data", [b"foreign", fake_tensorrt.plan_bytes()[:40]])
def test_a_broken_plan_is_refused_with_the_librarys_words(rig, tmp_path, data):
    path = tmp_path / "model.plan"
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match=r"magicTag.*forebay engine build"):
        open_plan(rig, path, {"on_mismatch": "ignore"})


def test_a_plan_is_not_rebuilt_from_another_model(rig, tmp_path):
    path = write_plan(tmp_path, manifest={"version": "9.9"})
    with pytest.raises(ModelFileError, match="not beside it"):
        open_plan(rig, path, {"on_mismatch": "rebuild"})
    (tmp_path / "model.onnx").write_bytes(b"another")
    with pytest.raises(ModelFileError, match="not the file"):
        open_plan(rig, path, {"on_mismatch": "rebuild"})


def test_a_missing_library_says_what_to_install(rig, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", None)
    with pytest.raises(BackendUnavailableError, match="pip install"):
        open_plan(rig, write_plan(tmp_path))


def test_plans_do_not_run_on_the_cpu(tmp_path):
    from forebay_server.engines import open_device

    device = open_device("cpu", clock=MonotonicClock())
    with pytest.raises(BackendUnavailableError, match="KIND_GPU"):
        open_engine(
            "tensorrt",
            model_path=write_plan(tmp_path),
            device=device,
            clock=MonotonicClock(),
            options={},
            max_batch_size=None,
        )

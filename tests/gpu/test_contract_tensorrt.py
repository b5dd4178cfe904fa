"""The engine contract on TensorRT or TensorRT-RTX and a GPU: plans built here, in FP32 and FP16, graphs and plain."""

import pytest

from forebay_server.engines.build.plans import BuildSettings, build_plan
from forebay_server.engines.build.precision import to_fp16
from forebay_server.engines.errors import BackendUnavailableError, ModelFileError
from forebay_server.engines.trt import library
from tests.contract.test_engine import *  # noqa: F403 - the contract suite, on the cases below
from tests.contract.test_engine import EngineCase, warmed_up_slot
from tests.support import models

CONV = models.conv_net(size=32, channels=16)


def write_plan(folder, precision="fp32"):
    source = models.save(CONV, folder / "model.onnx")
    if precision == "fp16":
        to_fp16(source, folder / "half.onnx")
        source = folder / "half.onnx"
    build_plan(source, folder / "model.plan", BuildSettings(max_batch=8))
    return folder / "model.plan"


def case_of(name, tolerance, precision="fp32", **options):
    return EngineCase(
        f"tensorrt-cuda-{name}",
        "tensorrt",
        "cuda",
        lambda inputs: models.reference(CONV, inputs),
        lambda folder: write_plan(folder, precision),
        options,
        None,
        tolerance,
        is_gpu=True,
    )


CASES = [
    case_of("graphs", 5e-3),
    case_of("plain", 5e-3, cuda_graphs="off"),
    case_of("fp16", 2e-2, precision="fp16"),
]


@pytest.fixture(autouse=True)
def needs_library(needs_gpu):
    try:
        library.load("auto")
    except BackendUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(params=[case.param for case in CASES])
def case(request):
    return request.param


@pytest.fixture
def engine(case, rig, tmp_path):
    try:
        return case.open(rig, tmp_path)
    except ModelFileError as error:
        if "cannot run on this GPU" in str(error):  # TensorRT-RTX and compute capability 9.0
            pytest.skip(f"{library.load('auto').name} does not support a {rig.device.describe().name}")
        raise


def test_captured_sizes_run_as_graphs(case, rig, engine, measured):
    slot = warmed_up_slot(rig, engine)
    for batch_size in range(1, engine.specs.max_batch_size + 1):
        engine.enqueue(0, batch_size, slot.compute)
    slot.compute.sync()
    measured(f"{library.load('auto').name}: graph {engine.launches.graph}, plain {engine.launches.plain}")
    assert (engine.launches.graph == 0) == (case.options.get("cuda_graphs") == "off")


def test_layers_are_timed(rig, engine, measured):
    slot = warmed_up_slot(rig, engine)
    times = engine.layer_times(0, 8, slot.compute, 5)
    measured(f"slowest of {len(times)}: {times[0][0][:40]} {times[0][1]:.3f} ms")
    assert times

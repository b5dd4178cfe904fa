"""The plan builder against real TensorRT-RTX, which builds without a GPU."""

import sys
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from forebay_server.engines.build.plans import BuildSettings, build_plan, rebuild
from forebay_server.engines.build.precision import to_fp16, to_int8
from forebay_server.engines.build.profiles import Rows
from forebay_server.engines.errors import ModelFileError
from forebay_server.engines.trt import library, manifest
from forebay_server.engines.trt.library import load
from tests.support import models

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")

DETECTOR = Path(__file__).parents[3] / "models" / "detector" / "1" / "model.onnx"
RTX = BuildSettings(library="tensorrt-rtx", optimization_level=0)


@pytest.fixture
def source(tmp_path):
    return models.save(models.conv_net(size=32, channels=16), tmp_path / "model.onnx")


def pictures(count=4):
    random = np.random.default_rng(0)
    return [{"image": random.normal(size=(1, 3, 32, 32)).astype(np.float32)} for _ in range(count)]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_precision_parses_and_builds_with_its_manifest(source, tmp_path, precision):
    model = source
    if precision == "fp16":
        model = tmp_path / "half.onnx"
        to_fp16(source, model)
    elif precision == "int8":
        model = tmp_path / "int8.onnx"
        to_int8(source, model, pictures(), "tensorrt")
    written = build_plan(model, tmp_path / "model.plan", RTX)
    assert written == manifest.read(tmp_path / "model.plan")
    assert written.precision == precision
    assert written.plan_sha256 == manifest.sha256((tmp_path / "model.plan").read_bytes())
    assert written.source_sha256 == manifest.sha256(model.read_bytes())
    assert (written.library, written.version) == ("tensorrt-rtx", load("tensorrt-rtx").version)


def test_int8_for_the_cpu_is_refused_and_the_operator_named(source, tmp_path):
    to_int8(source, tmp_path / "cpu.onnx", pictures(), "cpu")
    with pytest.raises(ModelFileError, match="operator DequantizeLinear"):
        build_plan(tmp_path / "cpu.onnx", tmp_path / "model.plan", RTX)


def test_profiles_are_the_ones_asked_for(source, tmp_path):
    settings = BuildSettings(library="tensorrt-rtx", rows=(Rows(1, 1, 1), Rows(2, 4, 16)), optimization_level=0)
    written = build_plan(source, tmp_path / "model.plan", settings)
    assert [shapes["image"] for shapes in written.profiles] == [
        [[1, 3, 32, 32]] * 3,
        [[2, 3, 32, 32], [4, 3, 32, 32], [16, 3, 32, 32]],
    ]


def test_a_model_of_fixed_size_needs_no_profile(tmp_path):
    source = models.save(models.conv_net(1, size=32), tmp_path / "model.onnx")
    assert build_plan(source, tmp_path / "model.plan", RTX).profiles == []


def test_varying_inner_dimensions_are_refused_by_name(tmp_path):
    source = models.save(models.identity(("batch", "width")), tmp_path / "model.onnx")
    with pytest.raises(ModelFileError, match=r"'x' has shape.*only the first dimension"):
        build_plan(source, tmp_path / "model.plan", RTX)


def test_an_unsupported_operator_is_named(tmp_path):
    node = helper.make_node("NonZero", ["x"], ["y"])
    model = models.build([node], [models.tensor("x", (4, 4))], [models.tensor("y", (2, None), TensorProto.INT64)])
    source = models.save(model, tmp_path / "model.onnx")
    with pytest.raises(ModelFileError, match="NonZero"):
        build_plan(source, tmp_path / "model.plan", RTX)


@pytest.mark.parametrize("data", [b"", b"no model"])
def test_a_broken_model_is_refused(tmp_path, data):
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match=r"model\.onnx"):
        build_plan(path, tmp_path / "model.plan", RTX)


def test_a_failed_build_leaves_no_plan(tmp_path):
    with pytest.raises(ModelFileError, match="workspace 1 MiB"):
        build_plan(DETECTOR, tmp_path / "model.plan", BuildSettings(library="tensorrt-rtx", workspace_mib=1))
    assert list(tmp_path.iterdir()) == []


def test_progress_is_told_and_other_threads_go_on(tmp_path):
    seen, gaps, is_over = [], [], threading.Event()

    def tick():
        last = time.monotonic()
        while not is_over.wait(0.001):
            now = time.monotonic()
            gaps.append(now - last)
            last = now

    ticker = threading.Thread(target=tick)
    ticker.start()
    started_cpu = time.process_time()
    started = time.monotonic()
    try:
        build_plan(DETECTOR, tmp_path / "model.plan", BuildSettings(library="tensorrt-rtx"), lambda *a: seen.append(a))
    finally:
        is_over.set()
        ticker.join()
    took_s, cpu_s = time.monotonic() - started, time.process_time() - started_cpu
    sys.stderr.write(f"detector built in {took_s:.1f} s, {cpu_s:.1f} s of CPU; longest pause {max(gaps):.2f} s\n")
    assert seen
    assert all(0 <= done <= whole for _phase, done, whole in seen)
    assert max(gaps) < took_s / 2


def test_a_plan_is_rebuilt_from_the_model_that_its_manifest_names(source, tmp_path):
    path = tmp_path / "model.plan"
    first = build_plan(source, path, BuildSettings(library="tensorrt-rtx", rows=(Rows(1, 2, 4),), optimization_level=1))
    path.write_bytes(b"damaged")
    data = rebuild(path, manifest.read(path), load("tensorrt-rtx"))
    again = manifest.read(path)
    assert manifest.sha256(data) == again.plan_sha256
    assert (again.profiles, again.settings) == (first.profiles, first.settings)


def test_the_library_is_found_by_name_and_its_errors_are_kept(source, tmp_path):
    rtx = library.load("tensorrt-rtx")
    assert library.load("tensorrt-rtx") is rtx
    mark = rtx.log.mark()
    path = tmp_path / "bad.onnx"
    model = onnx.load(source)
    model.graph.node[0].op_type = "NoSuchOperator"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelFileError):
        build_plan(path, tmp_path / "model.plan", RTX)
    assert rtx.log.mark() >= mark

"""The shapes of outputs that a file leaves open: taken from two runs if these agree."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from forebay_server.engines.clock import MonotonicClock
from forebay_server.engines.device_host import HostDevice
from forebay_server.service.models.observed_shapes import has_open_rows, most_open_rows, observed_shapes
from tests.support import models
from tests.support.rig import rig_of


def opened(rig, tmp_path, output_shape, input_shape=("N", 2, 3), datatype=TensorProto.FLOAT):
    """y is x, reshaped to sizes that ONNX Runtime cannot infer: they come from values."""
    weights = [
        numpy_helper.from_array(np.array([-1, 2, 3], np.int64), "sizes"),
        numpy_helper.from_array(np.zeros(1, np.float32), "nothing"),
    ]
    nodes = [
        helper.make_node("Cast", ["x"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["numbers"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "nothing"], ["zero"]),
        helper.make_node("Cast", ["zero"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Add", ["sizes", "whole"], ["shape"]),
        helper.make_node("Reshape", ["x", "shape"], ["y"]),
    ]
    inputs, outputs = [models.tensor("x", input_shape, datatype)], [models.tensor("y", output_shape, datatype)]
    path = models.save(models.build(nodes, inputs, outputs, weights), tmp_path / "model.onnx")
    return rig.open_engine("onnxruntime", path)


def observed(engine, example):
    return observed_shapes(engine, engine.run((example,)), 2)


@pytest.fixture
def rig():
    with rig_of(HostDevice(clock=MonotonicClock())) as rig:
        yield rig


def test_dimensions_that_a_file_leaves_open_are_those_of_the_runs(tmp_path, rig):
    engine = opened(rig, tmp_path, ("N", "a", "b"))
    assert observed(engine, np.zeros((2, 2, 3), np.float32)) == ((2, 3),)


def test_an_engine_settled_with_them_binds_fixed_buffers(tmp_path, rig):
    engine = opened(rig, tmp_path, ("N", "a", "b"))
    engine.settle(None, is_bound=True, output_shapes=((2, 3),))
    assert engine.specs.is_fixed
    assert engine.specs.outputs[0].shape == (2, 3)


@pytest.mark.parametrize("datatype", [TensorProto.UINT8, TensorProto.FLOAT16, TensorProto.INT64])
def test_noise_has_the_type_of_the_input(tmp_path, rig, datatype):
    engine = opened(rig, tmp_path, ("N", "a", "b"), datatype=datatype)
    dtype = helper.tensor_dtype_to_np_dtype(datatype)
    assert observed(engine, np.zeros((2, 2, 3), dtype)) == ((2, 3),)


def test_a_size_that_depends_on_values_stays_open(tmp_path, rig):
    inputs, outputs = [models.tensor("x", (2, 3))], [models.tensor("y", (2, "found"), TensorProto.INT64)]
    path = models.save(models.build([helper.make_node("NonZero", ["x"], ["y"])], inputs, outputs), tmp_path / "m.onnx")
    engine = rig.open_engine("onnxruntime", path)
    assert observed_shapes(engine, engine.run((np.zeros((2, 3), np.float32),)), 1) is None


def anchors(tmp_path, rig, *, counts):
    """y [n, 3] of x [2, 3], without a batch: the rows that a mask leaves, of the file or of the numbers of x."""
    found = [helper.make_node("ReduceMax", ["x"], ["most"], axes=[1], keepdims=0)]
    found += [helper.make_node("Greater", ["most", "nothing"], ["found"])]
    nodes = [
        *(found if counts else []),
        helper.make_node("Compress", ["x", "found" if counts else "all"], ["y"], axis=0),
    ]
    weights = [
        numpy_helper.from_array(np.array([True, True]), "all"),
        numpy_helper.from_array(np.zeros(1, np.float32), "nothing"),
    ]
    inputs, outputs = [models.tensor("x", (2, 3))], [models.tensor("y", ("n", 3))]
    path = models.save(models.build(nodes, inputs, outputs, weights), tmp_path / "model.onnx")
    return rig.open_engine("onnxruntime", path)


def test_rows_that_no_number_of_the_picture_decides_are_those_of_the_runs(tmp_path, rig):
    engine = anchors(tmp_path, rig, counts=False)
    outputs = engine.run((np.zeros((2, 3), np.float32),))
    assert has_open_rows(engine.specs)
    assert most_open_rows(engine.specs, outputs) == 2
    assert observed_shapes(engine, outputs, 1) == ((2, 3),)


def test_rows_that_count_objects_stay_open_also_where_two_runs_have_as_many(tmp_path, rig):
    engine = anchors(tmp_path, rig, counts=True)
    outputs = engine.run((np.ones((2, 3), np.float32),))
    assert outputs[0].shape == (2, 3), "as on noise"
    assert observed_shapes(engine, outputs, 1) is None
    assert most_open_rows(engine.specs, outputs) == 2


def test_nothing_is_observed_where_an_input_is_open_or_all_is_fixed(tmp_path, rig):
    open_input = opened(rig, tmp_path, ("N", "a", "b"), input_shape=("N", "a", "b"))
    assert observed(open_input, np.zeros((2, 2, 3), np.float32)) is None
    fixed = opened(rig, tmp_path, ("N", 2, 3))
    assert observed(fixed, np.zeros((2, 2, 3), np.float32)) is None

"""The shapes of outputs that a file leaves open: taken from two runs if these agree."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from forebay_server.engines.clock import MonotonicClock
from forebay_server.engines.device_host import HostDevice
from forebay_server.service.models.observed_shapes import observed_shapes
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


def test_nothing_is_observed_where_an_input_is_open_or_all_is_fixed(tmp_path, rig):
    open_input = opened(rig, tmp_path, ("N", "a", "b"), input_shape=("N", "a", "b"))
    assert observed(open_input, np.zeros((2, 2, 3), np.float32)) is None
    fixed = opened(rig, tmp_path, ("N", 2, 3))
    assert observed(fixed, np.zeros((2, 2, 3), np.float32)) is None

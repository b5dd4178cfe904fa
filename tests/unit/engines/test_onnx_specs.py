"""Where the batch dimension of an ONNX model is."""

import re

import numpy as np
import pytest

from forebay_server.engines.datatypes import BF16
from forebay_server.engines.errors import ModelFileError
from forebay_server.engines.onnx_specs import DEFAULT_MAX_BATCH_SIZE, NodeInfo, derive_specs


def derive(input_shape, output_shape, max_batch_size=None, onnx_type="tensor(float)"):
    inputs = [NodeInfo("x", onnx_type, input_shape)]
    return derive_specs("m.onnx", inputs, [NodeInfo("y", onnx_type, output_shape)], max_batch_size)


@pytest.mark.parametrize(
    ("input_shape", "output_shape", "asked", "rows", "has_batch", "shape"),
    [
        (("n", 3), ("n", 2), None, DEFAULT_MAX_BATCH_SIZE, True, (3,)),
        (("n", 3), ("n", 2), 16, 16, True, (3,)),
        ((None, 3), ("m", 2), 16, 16, True, (3,)),
        (("n", "h", 3), ("n", 2), 4, 4, True, (-1, 3)),
        ((1, 3), (1, 2), None, 1, True, (3,)),
        ((1, 3), (1, 2), 1, 1, True, (3,)),
        ((4, 3), (4, 2), 4, 4, True, (3,)),
        ((4, 3), (4, 2), None, 1, False, (4, 3)),
        ((4, 3), (4, 2), 1, 1, False, (4, 3)),
        ((1, 3), (7, 6), None, 1, False, (1, 3)),
        (("n", 3), ("n", 2), 0, 1, False, (-1, 3)),
        ((1, 3), (1, 2), 0, 1, False, (1, 3)),
        ((), (), None, 1, False, ()),
        ((1,), (1, 2), None, 1, False, (1,)),
        ((1,), (1, 2), 1, 1, True, ()),
        ((1, 2), (1,), None, 1, True, (2,)),
    ],
)
def test_the_batch_dimension_is_found(input_shape, output_shape, asked, rows, has_batch, shape):
    specs = derive(input_shape, output_shape, asked).specs
    assert (specs.max_batch_size, specs.has_batch_dimension) == (rows, has_batch)
    assert specs.inputs[0].shape == shape


@pytest.mark.parametrize(
    ("input_shape", "output_shape", "asked", "message"),
    [
        ((1, 3), (1, 2), 8, "max_batch_size is 8, but the first dimension of 'x'"),
        ((4, 3), (4, 2), 8, "set max_batch_size to 1"),
        (("n", 3), (7, 2), 8, "first dimension of 'y'"),
        ((), (), 2, "first dimension of 'x'"),
        (("n", 3), ("n", 2), -1, "at least 0"),
    ],
)
def test_a_batch_that_the_model_cannot_take_is_refused(input_shape, output_shape, asked, message):
    with pytest.raises(ModelFileError, match=message):
        derive(input_shape, output_shape, asked)


def test_a_fixed_batch_always_runs_whole():
    fixed = derive((4, 3), (4, 2), 4)
    assert fixed.run_shape(fixed.specs.inputs[0], 1) == [4, 3]
    free = derive(("n", 3), ("n", 2), 4)
    assert free.run_shape(free.specs.inputs[0], 2) == [2, 3]
    whole = derive((4, 3), (4, 2), 0)
    assert whole.run_shape(whole.specs.inputs[0], 1) == [4, 3]


@pytest.mark.parametrize(
    ("onnx_type", "dtype"),
    [
        ("tensor(float16)", np.float16),
        ("tensor(int64)", np.int64),
        ("tensor(bool)", np.bool_),
        ("tensor(bfloat16)", BF16),
        ("tensor(string)", object),
    ],
)
def test_types_become_numpy_dtypes(onnx_type, dtype):
    assert derive(("n", 3), ("n", 3), onnx_type=onnx_type).specs.inputs[0].dtype == np.dtype(dtype)


@pytest.mark.parametrize(
    ("onnx_type", "remedy"),
    [
        ("tensor(complex64)", "cast it"),
        ("tensor(float8e4m3fn)", "cast it"),
        ("tensor(int4)", "cast it"),
        ("seq(tensor(float))", "make it tensors"),
        ("optional(tensor(float))", "make it tensors"),
        ("map(int64,tensor(float))", "make it tensors"),
    ],
)
def test_a_type_that_the_protocol_does_not_have_is_refused_with_its_tensor(onnx_type, remedy):
    words = f"tensor 'x' has type {onnx_type}, which the Open Inference Protocol does not have: {remedy} in the model"
    with pytest.raises(ModelFileError, match=re.escape(words)):
        derive(("n", 3), ("n", 3), onnx_type=onnx_type)


def test_a_model_that_runs_unbound_has_no_fixed_sizes():
    bound = derive(("n", 3), ("n", 2))
    assert (bound.specs.is_fixed, bound.unbound("m.onnx").specs.is_fixed) == (True, False)


def test_a_fixed_batch_does_not_run_unbound():
    with pytest.raises(ModelFileError, match=r"a batch is always 4 rows.*write max_batch_size: 0"):
        derive((4, 3), (4, 2), 4).unbound("m.onnx")

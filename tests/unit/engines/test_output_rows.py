"""Outputs with a row for each object have a fixed number of rows afterwards: the model's, and padding behind them."""

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from forebay_server.engines.folded_file import folded_file
from forebay_server.engines.onnx_wire import onnx_model_pb2 as wire
from forebay_server.engines.output_rows import DTYPES, RowsError, fix_rows
from tests.support import models

MOST = 12
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def counting(outputs, opset=17, batch=1):
    """A model whose input [batch] says how many of its rows it gives: outputs are name to (type, dims)."""
    nodes, constants = [helper.make_node("Cast", ["count"], ["rows"], to=INT64)], {"first": np.array([0])}
    for name, (kind, dims) in outputs.items():
        axis = dims.index("n")
        constants |= {f"{name}_all": rows_of(kind, dims), f"{name}_axis": np.array([axis])}
        nodes.append(helper.make_node("Slice", [f"{name}_all", "first", "rows", f"{name}_axis"], [name]))
    graph = helper.make_graph(
        nodes,
        "counting",
        [helper.make_tensor_value_info("count", FLOAT, [batch])],
        [helper.make_tensor_value_info(name, kind, dims) for name, (kind, dims) in outputs.items()],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def rows_of(kind, dims):
    shape = [MOST if dim == "n" else dim for dim in dims]
    return np.arange(1, np.prod(shape) + 1).reshape(shape).astype(DTYPES[kind])


def fixed(model, count):
    parsed = wire.ModelProto.FromString(model.SerializeToString())
    fix_rows(parsed, count)
    content = parsed.SerializeToString()
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    return content


@given(
    st.integers(0, MOST),
    st.integers(1, 20),
    st.sampled_from([("n",), ("n", 4), (1, "n", 6)]),
    st.sampled_from([*DTYPES]),
)
def test_rows_are_those_of_the_model_and_padding_behind_them(rows, count, dims, kind):
    session = onnxruntime.InferenceSession(fixed(counting({"found": (kind, dims)}), count))
    (found,) = session.run(None, {"count": np.array([rows], np.float32)})
    axis, padding = dims.index("n"), -1 if np.dtype(DTYPES[kind]).kind == "f" else 0
    expected = np.full([count if dim == "n" else dim for dim in dims], padding, DTYPES[kind])
    kept = min(rows, count)
    window = (slice(None),) * axis + (slice(kept),)
    expected[window] = rows_of(kind, dims)[window]
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected)
    assert session.get_outputs()[0].shape == list(expected.shape)


def test_every_open_output_is_fixed_and_a_tensor_that_is_read_elsewhere_stays():
    model = counting({"boxes": (FLOAT, ("n", 4)), "labels": (INT64, ("n",))})
    model.graph.node.append(helper.make_node("Shape", ["boxes"], ["sizes"]))
    branch = helper.make_graph(
        [helper.make_node("Identity", ["boxes"], ["inner"])],
        "branch",
        [],
        [helper.make_tensor_value_info("inner", FLOAT, None)],
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.append(helper.make_node("If", ["yes"], ["again"], then_branch=branch, else_branch=branch))
    model.graph.node.append(helper.make_node("Size", ["again"], ["size"]))
    for name, dims in {"sizes": [2], "size": []}.items():
        model.graph.output.append(helper.make_tensor_value_info(name, INT64, dims))
    session = onnxruntime.InferenceSession(fixed(model, 7))
    boxes, labels, sizes, size = session.run(None, {"count": np.array([3], np.float32)})
    assert (boxes.shape, labels.shape) == ((7, 4), (7,))
    assert (sizes.tolist(), int(size)) == ([3, 4], 12)


def refused(model):
    with pytest.raises(RowsError) as error:
        fix_rows(wire.ModelProto.FromString(model.SerializeToString()), 5)
    return str(error.value)


def test_other_models_are_refused_in_one_line():
    assert "opset 9, before 10" in refused(counting({"y": (FLOAT, ("n",))}, opset=9))
    assert "batch is open" in refused(counting({"y": (FLOAT, ("n",))}, batch="batch"))
    closed = counting({"y": (FLOAT, ("n",))})
    closed.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 3
    assert "every output of the model has a fixed size" in refused(closed)
    twice = counting({"y": (FLOAT, ("n", 4))})
    twice.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "m"
    assert "output 'y' is no tensor of numbers that leaves one dimension open" in refused(twice)
    through = counting({"y": (FLOAT, ("n",))})
    through.graph.output.append(helper.make_tensor_value_info("y_all", FLOAT, ["n"]))
    assert "output 'y_all' is no result of a node" in refused(through)


def test_a_kept_file_is_that_of_its_number_of_rows(tmp_path):
    path = models.save(counting({"y": (FLOAT, ("n",))}), tmp_path / "model.onnx")
    contents = [folded_file(path, None, tmp_path / "cache", rows) for rows in (5, 6, 5)]
    assert contents[0] == contents[2] != contents[1]
    assert len(list((tmp_path / "cache" / "folds").iterdir())) == 2

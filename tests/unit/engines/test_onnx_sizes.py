"""Whether sizes of outputs follow from those of inputs, told from the nodes of a file."""

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from forebay_server.engines.onnx_sizes import COUNTING, NEWEST_OPSET, SIZES, sizes_follow_inputs
from forebay_server.engines.onnx_wire import onnx_model_pb2 as wire
from tests.support import models

WHOLE = TensorProto.INT64


def model_of(nodes, opset=17, **constants):
    """x [4] to y of any size."""
    weights = [numpy_helper.from_array(np.array(values), name) for name, values in constants.items()]
    graph = helper.make_graph(nodes, "g", [models.tensor("x", (4,))], [models.tensor("y", ("n",))], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    return model


def follow(model):
    return sizes_follow_inputs(wire.ModelProto.FromString(model.SerializeToString()))


node = helper.make_node
MASK = [node("Greater", ["x", "half"], ["mask"])]
WHOLE_OF_X = [node("ReduceSum", ["x"], ["sum"], keepdims=0), node("Cast", ["sum"], ["count"], to=WHOLE)]


def test_a_size_from_a_constant_or_from_the_shape_of_an_input_follows():
    assert follow(model_of([node("Reshape", ["x", "to"], ["y"])], to=[-1]))
    shaped = [
        node("Shape", ["x"], ["shape"]),
        node("Mul", ["shape", "two"], ["twice"]),
        node("Tile", ["x", "two"], ["longer"]),
        node("Reshape", ["longer", "twice"], ["y"]),
    ]
    assert follow(model_of(shaped, two=[2]))


@pytest.mark.parametrize(
    "nodes",
    [
        [node("NonZero", ["x"], ["places"]), node("Cast", ["places"], ["y"], to=TensorProto.FLOAT)],
        [*WHOLE_OF_X, node("Range", ["zero", "count", "one"], ["r"]), node("Cast", ["r"], ["y"], to=TensorProto.FLOAT)],
        [node("Cast", ["x"], ["to"], to=WHOLE), node("Slice", ["x", "start", "to", "start"], ["y"])],
        [node("NonZero", ["x"], ["places"]), node("Shape", ["places"], ["s"]), node("ConstantOfShape", ["s"], ["y"])],
        [*MASK, node("Compress", ["x", "mask"], ["y"])],
        [node("FusedGelu", ["x"], ["y"], domain="com.microsoft")],
    ],
)
def test_a_size_from_numbers_of_an_input_does_not(nodes):
    assert not follow(model_of(nodes, zero=0, one=1, start=[0], half=np.float32(0.5)))


def test_branches_and_later_operators_are_not_known():
    branch = helper.make_graph([node("Identity", ["x"], ["b"])], "b", [], [models.tensor("b", ("n",))])
    inner = node("If", ["cond"], ["y"], then_branch=branch, else_branch=branch)
    assert not follow(model_of([inner], cond=True))
    assert follow(model_of([node("Identity", ["x"], ["y"])], opset=NEWEST_OPSET))
    assert not follow(model_of([node("Identity", ["x"], ["y"])], opset=NEWEST_OPSET + 1))


def test_an_output_of_known_size_beside_one_of_another_does_not_hide_it():
    model = model_of([node("NonZero", ["x"], ["places"]), node("Identity", ["x"], ["y"])])
    assert follow(model)
    model.graph.output.append(models.tensor("places", (1, "n"), WHOLE))
    assert not follow(model)


def test_every_operator_with_an_input_for_a_size_is_listed():
    """By ONNX's own words about the inputs of its operators."""
    words = {"shape", "repeats", "pads", "starts", "ends", "scales", "sizes", "k", "depth", "split", "axes", "limit"}
    words |= {"output_shape", "image_shape", "block_shape", "size", "steps", "delta", "start", "frame_length"}
    listed = set(SIZES) | COUNTING
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain or schema.since_version > NEWEST_OPSET or schema.name.startswith("Reduce"):
            continue
        if schema.name in {"Attention", "Trilu"}:  # whose K is no size
            continue
        if any(each.name.lower() in words for each in schema.inputs):
            assert schema.name in listed, schema.name


STEPS = {
    "mask": lambda last, out, _: [*MASK, node("Compress", [last, "mask"], [out], axis=0)],
    "whole mask": lambda last, out, _: [node("Compress", [last, "all"], [out], axis=0)],
    "cut": lambda last, out, size: [node("Slice", [last, "zero", size], [out])],
    "add": lambda last, out, _: [node("Add", [last, "half"], [out])],
    "repeat": lambda last, out, _: [node("Tile", [last, "two"], [out])],
    "fill": lambda _, out, size: [node("ConstantOfShape", [size], [out])],
}
SIZES_OF = {
    "length": lambda last, out: [node("Shape", [last], [out])],
    "largest": lambda last, out: [
        node("ReduceMax", [last], [f"{out}m"], keepdims=1),
        node("Ceil", [f"{out}m"], [f"{out}c"]),
        node("Cast", [f"{out}c"], [out], to=WHOLE),
    ],
}


@given(st.lists(st.sampled_from([*STEPS, *SIZES_OF]), min_size=1, max_size=6), st.integers(0, 2**31))
def test_where_sizes_follow_every_input_gives_outputs_of_one_size(kinds, seed):
    """ONNX Runtime on random numbers: no size varies that was said to follow."""
    nodes, last, size = [], "x", "two"
    for place, kind in enumerate(kinds):
        out = f"t{place}"
        if kind in SIZES_OF:
            nodes += SIZES_OF[kind](last, out)
            size = out
        else:
            nodes += STEPS[kind](last, out, size)
            last = out
    nodes = [each for place, each in enumerate(nodes) if each not in nodes[:place]]  # one mask
    nodes.append(node("Identity", [last], ["y"]))
    model = model_of(nodes, two=[2], zero=[0], half=np.float32(0.5), all=[True] * 4)
    if not follow(model):
        return
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(seed)
    sizes = {session.run(None, {"x": random.random(4).astype(np.float32) * 4})[0].shape for _ in range(8)}
    assert len(sizes) == 1

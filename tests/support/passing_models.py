"""ONNX models with outputs that no kernel computes, or that a runtime may well answer with memory of another tensor.

An output that is an input, a weight, a constant, or another output; inputs that nodes, branches, loops and sequences
pass on; chains that an optimizer removes; shapes that change while the bytes stay.
"""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.support.models import Dim, build, tensor

ROW_BY_ROW = ("echo", "echo-beside", "chain", "between", "no-op", "loop-of-one", "loop-that-passes")
"""Those of `of_shape` whose rows do not depend on each other, and on nothing else."""


def echo(shape: Sequence[Dim] = ("batch", 4), onnx_type: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """x -> x: the output is the input, and there is nothing to compute."""
    return build([], [tensor("x", shape, onnx_type)], [tensor("x", shape, onnx_type)])


def echo_beside(shape: Sequence[Dim] = ("batch", 4), onnx_type: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """x, z -> y, x, z, y: two inputs and their sum, which is listed twice. Newer exporters write the like."""
    inputs = [tensor("x", shape, onnx_type), tensor("z", shape, onnx_type)]
    total = tensor("y", shape, onnx_type)
    return build([helper.make_node("Add", ["x", "z"], ["y"])], inputs, [total, *inputs, total])


def with_batch() -> dict[str, onnx.ModelProto]:
    """By name, with a batch dimension."""
    return {**of_shape("batch", 4), "scan": _scan(), "reshape": _reshape()}


def of_shape(*shape: Dim) -> dict[str, onnx.ModelProto]:
    """By name, of the given shape; those with outputs of a constant shape if it is one."""
    found = {
        "echo": echo(shape),
        "echo-beside": echo_beside(shape),
        "chain": _nodes(shape, ("Identity", "x", "a"), ("Identity", "a", "b"), ("Identity", "b", "y")),
        "between": _nodes(shape, ("Neg", "x", "a"), ("Identity", "a", "b"), ("Neg", "b", "y"), outputs="aby"),
        "no-op": _nodes(shape, ("Dropout", "x", "a"), ("Concat", "a", "y"), axis=0),
        "branch-taken": _branch(shape, 0.0),
        "branch-not-taken": _branch(shape, 1e9),
        "element-of-a-sequence": _sequence(shape),
        "loop-without-a-round": _loop(shape, 0, "Neg"),
        "loop-of-one": _loop(shape, 1, "Neg"),
        "loop-that-passes": _loop(shape, 3, "Identity"),
    }
    if all(isinstance(dim, int) for dim in shape):
        found["weight"] = _weights(shape)
    return found


def _value(name: str, value: object) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value), name)


def _nodes(shape: Sequence[Dim], *nodes: tuple[str, str, str], outputs: str = "y", **last: object) -> onnx.ModelProto:
    made = [helper.make_node(kind, [source], [target]) for kind, source, target in nodes[:-1]]
    kind, source, target = nodes[-1]
    made.append(helper.make_node(kind, [source], [target], **last))
    return build(made, [tensor("x", shape)], [tensor(name, shape) for name in outputs])


def _weights(shape: Sequence[Dim]) -> onnx.ModelProto:
    """x -> y, w, v, c: -x, a weight, the weight passed on, and a constant."""
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    nodes = [
        helper.make_node("Neg", ["x"], ["y"]),
        helper.make_node("Identity", ["w"], ["v"]),
        helper.make_node("Constant", [], ["c"], value=_value("c", -values)),
    ]
    outputs = [tensor(name, shape) for name in "ywvc"]
    return build(nodes, [tensor("x", shape)], outputs, [_value("w", values)])


def _branch(shape: Sequence[Dim], limit: float) -> onnx.ModelProto:
    """x -> y, which is x where the greatest |x| is above `limit`, else -x: a branch that depends on the data."""
    passed, negated = (
        helper.make_graph([helper.make_node(kind, ["x"], [name])], name, [], [tensor(name, shape)])
        for kind, name in (("Identity", "passed"), ("Neg", "negated"))
    )
    nodes = [
        helper.make_node("Abs", ["x"], ["size"]),
        helper.make_node("ReduceMax", ["size"], ["greatest"], keepdims=0),
        helper.make_node("Greater", ["greatest", "limit"], ["is_above"]),
        helper.make_node("If", ["is_above"], ["y"], then_branch=passed, else_branch=negated),
    ]
    return build(nodes, [tensor("x", shape)], [tensor("y", shape)], [_value("limit", np.float32(limit))])


def _loop(shape: Sequence[Dim], rounds: int, kind: str) -> onnx.ModelProto:
    """x -> y: a loop that applies a node to its carried value."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["goes_on"], ["still"]), helper.make_node(kind, ["carried"], ["next"])],
        "body",
        [tensor("round", (), TensorProto.INT64), tensor("goes_on", (), TensorProto.BOOL), tensor("carried", shape)],
        [tensor("still", (), TensorProto.BOOL), tensor("next", shape)],
    )
    node = helper.make_node("Loop", ["rounds", "always", "x"], ["y"], body=body)
    weights = [_value("rounds", np.int64(rounds)), _value("always", np.True_)]
    return build([node], [tensor("x", shape)], [tensor("y", shape)], weights)


def _sequence(shape: Sequence[Dim]) -> onnx.ModelProto:
    """x -> y: put into a sequence and taken out again."""
    nodes = [
        helper.make_node("SequenceConstruct", ["x"], ["list"]),
        helper.make_node("SequenceAt", ["list", "first"], ["y"]),
    ]
    return build(nodes, [tensor("x", shape)], [tensor("y", shape)], [_value("first", np.int64(0))])


def _scan() -> onnx.ModelProto:
    """x -> y: row by row, passed on."""
    body = helper.make_graph([helper.make_node("Identity", ["row"], ["same"])], "body", [tensor("row", (4,))],
                             [tensor("same", (4,))])  # fmt: skip
    node = helper.make_node("Scan", ["x"], ["y"], body=body, num_scan_inputs=1)
    return build([node], [tensor("x", ("batch", 4))], [tensor("y", ("batch", 4))])


def _reshape() -> onnx.ModelProto:
    """x -> r, y: the same bytes in other shapes."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Reshape", ["r", "shape"], ["s"]),
        helper.make_node("Flatten", ["s"], ["y"]),
    ]
    outputs = [tensor("r", ("batch", 2, 2)), tensor("y", ("batch", 4))]
    weights = [_value("shape", np.array([-1, 4, 1]))]
    return build(nodes, [tensor("x", ("batch", 2, 2))], outputs, weights)

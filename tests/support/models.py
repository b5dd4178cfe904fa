"""Small ONNX models for tests, built on the fly, and their oracles in numpy."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

OPSET = 17
IR_VERSION = 10

Dim = int | str | None


def build(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: Sequence[onnx.TensorProto] = (),
) -> onnx.ModelProto:
    """Make a checked model of the given graph."""
    graph = helper.make_graph(list(nodes), "test", list(inputs), list(outputs), list(weights))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    return model


def tensor(name: str, shape: Sequence[Dim], onnx_type: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx_type, list(shape))


def identity(shape: Sequence[Dim] = ("batch", 4), onnx_type: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """x -> y, y equals x."""
    node = helper.make_node("Identity", ["x"], ["y"])
    return build([node], [tensor("x", shape, onnx_type)], [tensor("y", shape, onnx_type)])


def add_sub(shape: Sequence[Dim] = ("batch", 16), onnx_type: int = TensorProto.INT32) -> onnx.ModelProto:
    """INPUT0, INPUT1 -> OUTPUT0 (the sum), OUTPUT1 (the difference): Triton's `simple` model."""
    nodes = [
        helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
        helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
    ]
    inputs = [tensor("INPUT0", shape, onnx_type), tensor("INPUT1", shape, onnx_type)]
    return build(nodes, inputs, [tensor("OUTPUT0", shape, onnx_type), tensor("OUTPUT1", shape, onnx_type)])


def conv_net(
    batch: Dim = "batch", *, size: int = 16, channels: int = 8, classes: int = 10, seed: int = 7
) -> onnx.ModelProto:
    """image (batch, 3, size, size) float32 -> scores (batch, classes): conv, relu, global mean, linear."""
    random = np.random.default_rng(seed)
    weights = [
        numpy_helper.from_array(random.normal(0, 0.3, (channels, 3, 3, 3)).astype(np.float32), "kernel"),
        numpy_helper.from_array(random.normal(0, 0.3, (channels, classes)).astype(np.float32), "weight"),
        numpy_helper.from_array(random.normal(0, 0.3, classes).astype(np.float32), "bias"),
    ]
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["features"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["features"], ["active"]),
        helper.make_node("GlobalAveragePool", ["active"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["scores"]),
    ]
    return build(nodes, [tensor("image", (batch, 3, size, size))], [tensor("scores", (batch, classes))], weights)


def failing(shape: Sequence[Dim] = ("batch", 4)) -> onnx.ModelProto:
    """x -> y, y[row] = table[int(x[row])]: an index of 2 or more fails at run time, the next run is fine."""
    nodes = [
        helper.make_node("Cast", ["x"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "index"], ["y"]),
    ]
    table = numpy_helper.from_array(np.array([10.0, 20.0], np.float32), "table")
    return build(nodes, [tensor("x", shape)], [tensor("y", shape)], [table])


def save(model: onnx.ModelProto, path: Path) -> Path:
    """Write `model` to `path`, making its folder; returns `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


def reference(model: onnx.ModelProto, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs of `model` by ONNX's own reference implementation: the oracle of engine tests."""
    names = [value.name for value in model.graph.input]
    return list(ReferenceEvaluator(model).run(None, dict(zip(names, inputs, strict=True))))

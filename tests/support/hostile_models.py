"""Models that a server must survive being asked to load."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.support import models


def endless():
    """x -> y by a Loop whose condition stays true and whose count is the largest there is: it loads and never ends."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["is_going_on"], ["goes_on"]),
            helper.make_node("Identity", ["value"], ["same"]),
        ],
        "body",
        [
            models.tensor("turn", [], TensorProto.INT64),
            models.tensor("is_going_on", [], TensorProto.BOOL),
            models.tensor("value", ("batch", 4)),
        ],
        [models.tensor("goes_on", [], TensorProto.BOOL), models.tensor("same", ("batch", 4))],
    )
    true = numpy_helper.from_array(np.array(True), "true")
    loop = helper.make_node("Loop", ["", "true", "x"], ["y"], body=body)
    return models.build([loop], [models.tensor("x", ("batch", 4))], [models.tensor("y", ("batch", 4))], [true])


def greedy(gigabytes):
    """x -> y, x plus constants of so many GB: 1 KB as a file. ONNX Runtime computes each of them when it loads it."""
    shape = numpy_helper.from_array(np.array([250_000_000], np.int64), "shape")
    nodes, value = [], "x"
    for index in range(gigabytes):
        number = helper.make_tensor("number", TensorProto.FLOAT, [1], [float(index)])
        nodes.append(helper.make_node("ConstantOfShape", ["shape"], [f"large{index}"], value=number))
        nodes.append(helper.make_node("Add", [value, f"large{index}"], [f"wide{index}"]))
        nodes.append(helper.make_node("ReduceMax", [f"wide{index}"], [f"value{index}"], keepdims=1))
        value = f"value{index}"
    return models.build(nodes, [models.tensor("x", [1])], [models.tensor(value, [1])], [shape])

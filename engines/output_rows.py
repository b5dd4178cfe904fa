"""Outputs with as many rows as a model finds objects become outputs with a fixed number of rows. Pure.

Buffers of streams have a fixed size. So two nodes follow each output that leaves one dimension open:

    Concat with rows of padding -> Slice to the wanted number

Rows of padding are -1 in floats, which is below every score, and 0 in whole numbers; rows beyond the number are lost.
The output keeps its name, and the tensor before the new nodes gets another.
"""

import numpy as np
from numpy.typing import NDArray

from forebay_server.engines.onnx_graph import GraphError, free_name, graphs, rename
from forebay_server.engines.onnx_wire import onnx_model_pb2 as wire

INT, TENSOR = 2, 4  # AttributeProto.type
INT64 = 7
DTYPES = {
    1: "<f4",
    2: "u1",
    3: "i1",
    4: "<u2",
    5: "<i2",
    6: "<i4",
    7: "<i8",
    10: "<f2",
    11: "<f8",
    12: "<u4",
    13: "<u8",
}
"""TensorProto.data_type -> its memory."""
LEAST_OPSET = 10  # before it, Slice has no inputs for its bounds


class RowsError(GraphError):
    """The rows of this model's outputs cannot be fixed; the message completes "output_rows is written, but ..."."""


def fix_rows(model: wire.ModelProto, count: int) -> None:
    """Give every output that leaves one dimension open `count` rows there.

    Raises:
        RowsError: there is no such output, or one that this does not fit; the model may be changed in part.
        GraphError: branches are nested too deeply.
    """
    graph = model.graph
    opset = max((each.version for each in model.opset_import if each.domain in {"", "ai.onnx"}), default=1)
    if opset < LEAST_OPSET:
        raise RowsError(f"the model has opset {opset}, before {LEAST_OPSET}: export it anew")
    if any(dims and not dims[0] for dims in map(_dims, graph.input)):
        raise RowsError("the model's batch is open: export it with a batch of 1")
    found = {value.name: value for value in graph.output if 0 in _dims(value)}
    if not found:
        raise RowsError("every output of the model has a fixed size: leave it out")
    for value in found.values():
        _fix(graph, value, count)


def _fix(graph: wire.GraphProto, value: wire.ValueInfoProto, count: int) -> None:
    name, dims, kind = value.name, _dims(value), value.type.tensor_type.elem_type
    if dims.count(0) > 1 or kind not in DTYPES:
        raise RowsError(f"output {name!r} is no tensor of numbers that leaves one dimension open")
    producer = next((node for node in graph.node if name in node.output), None)
    if producer is None:
        raise RowsError(f"output {name!r} is no result of a node")
    axis = dims.index(0)
    inner = free_name(graph, f"{name}.rows")
    for part in graphs(graph):
        rename(part, name, inner)
    producer.output[list(producer.output).index(name)] = inner
    for each in graph.output:
        if each.name == inner:  # an output may be listed twice
            each.name = name
            each.type.tensor_type.shape.dim[axis].Clear()
            each.type.tensor_type.shape.dim[axis].dim_value = count
    dtype = DTYPES[kind]
    padding = np.full([*dims[:axis], count, *dims[axis + 1 :]], -1 if "f" in dtype else 0, dtype)
    longer = wire.NodeProto(output=[f"{inner}.longer"], name=f"{inner}.longer", op_type="Concat")
    longer.input.extend([inner, _constant(graph, f"{inner}.padding", padding, kind)])
    longer.attribute.add(name="axis", i=axis, type=INT)
    bounds = {"first": 0, "end": count, "axis": axis}
    fixed = wire.NodeProto(input=longer.output, output=[name], name=f"{inner}.fixed", op_type="Slice")
    fixed.input.extend(
        _constant(graph, f"{inner}.{key}", np.array([number], "<i8"), INT64) for key, number in bounds.items()
    )
    graph.node.extend([longer, fixed])


def _constant(graph: wire.GraphProto, name: str, values: NDArray[np.generic], kind: int) -> str:
    """Append a node that gives `values`, and return its output."""
    tensor = wire.TensorProto(dims=values.shape, data_type=kind, raw_data=values.tobytes())
    node = wire.NodeProto(output=[name], name=name, op_type="Constant")
    node.attribute.add(name="value", t=tensor, type=TENSOR)
    graph.node.append(node)
    return name


def _dims(value: wire.ValueInfoProto) -> list[int]:
    """Return the dimensions, 0 for those that vary."""
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]

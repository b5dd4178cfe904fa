"""Normalisation as a part of the model: nodes in front of its picture input, which becomes the picture's bytes. Pure.

A model [N, 3, H, W] FP32 then takes [N, H, W, 3] UINT8: a quarter of the bytes to move, and the same numbers as
`(pixel * scale - mean) / std` within the rounding of FP32. The nodes are

    Transpose (channels first) -> Cast to FP32 -> Mul scale/std, or Div -> Sub mean/std -> Cast to FP16 (FP16 inputs)

each only where it changes something. A factor of 1/255 becomes Div by 255: 1/255 is no FP32 number, so that a product
with it is in the last digit another number than the quotient for two of three pixels. Bytes are transposed, not
numbers: at 640x640 that saves 0.2 of 1.0 ms. Values of FP16 are computed in FP32, because FP16 has too few digits for
the products. The input keeps its name; the tensor behind the new nodes gets another, in every node that used it,
branches and loop bodies included.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from forebay_server.engines.onnx_graph import GraphError, free_name, graphs, rename
from forebay_server.engines.onnx_wire import onnx_model_pb2 as wire

FLOAT, UINT8, FLOAT16 = 1, 2, 10  # TensorProto.data_type
INT, TENSOR, INTS = 2, 4, 7  # AttributeProto.type
LEAST_OPSET = 7  # before it, Mul and Sub broadcast otherwise; PyTorch has exported later ones since 2018
EXACT = 1e-12  # relative: of doubles that are an FP32 number but for a rounding


class FoldError(GraphError):
    """The nodes do not fit this model, which can be served without them."""


@dataclass(frozen=True, slots=True)
class Fold:
    """The normalisation of one input; see `service.pictures.picture_input.Values` for the numbers.

    Attributes:
        input_name: of the picture.
        layout: of the model's own input.
        channels: 1 or 3.
        mean: one number, or one for each channel.
        std: one number, or one for each channel.
        scale: of pixels from 0 to 255.
        is_cast_first: whether Cast comes before Transpose: TensorRT takes bytes only where they are cast at once.
    """

    input_name: str
    layout: Literal["NHWC", "NCHW"]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float
    is_cast_first: bool = False


def fold_into(model: wire.ModelProto, fold: Fold) -> None:
    """Change a model so that it takes the picture's bytes.

    Raises:
        FoldError: it cannot be changed so; the model is unchanged then.
    """
    graph = model.graph
    found = next((value for value in graph.input if value.name == fold.input_name), None)
    _check(model, found, fold)
    assert found is not None  # noqa: S101 - for mypy: checked
    own_type = found.type.tensor_type.elem_type
    inner = free_name(graph, f"{fold.input_name}.values")
    for part in graphs(graph):
        rename(part, fold.input_name, inner)
    nodes = _Nodes(graph, fold.input_name, inner)
    if fold.is_cast_first:
        nodes.add("Cast", to=FLOAT)
    if fold.layout == "NCHW":
        nodes.add("Transpose", perm=(0, 3, 1, 2))
        dims = list(found.type.tensor_type.shape.dim)
        found.type.tensor_type.shape.ClearField("dim")
        found.type.tensor_type.shape.dim.extend(dims[at] for at in (0, 2, 3, 1))
    if not fold.is_cast_first:
        nodes.add("Cast", to=FLOAT)
    _normalise(nodes, fold)
    if own_type == FLOAT16:
        nodes.add("Cast", to=FLOAT16)
    nodes.finish()
    found.type.tensor_type.elem_type = UINT8


def _normalise(nodes: "_Nodes", fold: Fold) -> None:
    std = np.array(fold.std, np.float64)
    factor, offset = fold.scale / std, np.array(fold.mean, np.float64) / std
    divisor = (1 / factor).astype(np.float32).astype(np.float64)
    if np.allclose(divisor * factor, 1, rtol=EXACT, atol=0):
        if not np.all(divisor == 1):
            nodes.add_with("Div", divisor, fold)
    else:
        nodes.add_with("Mul", factor, fold)
    if np.any(offset):
        nodes.add_with("Sub", offset, fold)


def _check(model: wire.ModelProto, found: wire.ValueInfoProto | None, fold: Fold) -> None:
    if found is None:
        raise FoldError(f"the model has no input {fold.input_name!r}")
    opset = max((each.version for each in model.opset_import if each.domain in {"", "ai.onnx"}), default=1)
    if opset < LEAST_OPSET:
        raise FoldError(f"the model has opset {opset}, before {LEAST_OPSET}: export it anew")
    tensor = found.type.tensor_type
    if tensor.elem_type not in {FLOAT, FLOAT16} or len(tensor.shape.dim) != 4:
        raise FoldError(f"input {fold.input_name!r} is not FP32 or FP16 of four dimensions")
    if any(value.name == fold.input_name for value in model.graph.output):
        raise FoldError(f"input {fold.input_name!r} is an output too")


class _Nodes:
    """A chain of nodes from one tensor to another, put in front of all others."""

    def __init__(self, graph: wire.GraphProto, source: str, target: str) -> None:
        self._graph = graph
        self._source = source
        self._target = target
        self._nodes: list[wire.NodeProto] = []
        self._constants: list[wire.NodeProto] = []

    def add(self, kind: str, **attributes: int | tuple[int, ...]) -> None:
        """Append a node of one input."""
        step = f"{self._target}.{kind}{len(self._nodes)}"
        before = self._nodes[-1].output[0] if self._nodes else self._source
        node = wire.NodeProto(input=[before], output=[step], name=step, op_type=kind)
        for name, value in attributes.items():
            if isinstance(value, int):
                node.attribute.add(name=name, i=value, type=INT)
            else:
                node.attribute.add(name=name, ints=value, type=INTS)
        self._nodes.append(node)

    def add_with(self, kind: str, numbers: NDArray[np.float64], fold: Fold) -> None:
        """Append a node whose second input is one number, or one for each channel."""
        self.add(kind)
        node = self._nodes[-1]
        node.input.append(f"{node.name}.constant")
        dims = [] if numbers.size == 1 else [numbers.size, 1, 1] if fold.layout == "NCHW" else [numbers.size]
        tensor = wire.TensorProto(dims=dims, data_type=FLOAT, raw_data=numbers.astype("<f4").tobytes())
        constant = wire.NodeProto(output=[node.input[1]], name=node.input[1], op_type="Constant")
        constant.attribute.add(name="value", t=tensor, type=TENSOR)
        self._constants.append(constant)  # a node: files of IR version 3 list initializers among the inputs

    def finish(self) -> None:
        """Let the last node give the target, and put all in front."""
        self._nodes[-1].output[0] = self._target
        others = list(self._graph.node)
        self._graph.ClearField("node")
        self._graph.node.extend([*self._constants, *self._nodes, *others])

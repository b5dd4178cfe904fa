"""FP16 for part of an ONNX graph, by node: the rest and all other types stay unchanged.

Why not a converter: those of onnxruntime 1.32 and onnxconverter-common 1.16 share code that leaves the nodes of a graph
out of order when a node kept in FP32 reads the output of a Cast, as in models that take bytes (docs/adr/0030).
"""

from typing import Any

import numpy as np

from forebay_server.engines.build.onnx_file import import_onnx

_FP16_MAX = 65504.0
_ALWAYS_FP32_INPUTS = {"Resize": (1, 2)}  # roi and scales are FP32 by the operator's definition

_TYPED_BY_ATTRIBUTE = frozenset({"Cast", "CastLike", "DequantizeLinear", "QuantizeLinear"})


def convert_nodes(model: Any, names: frozenset[str]) -> int:  # noqa: ANN401
    """Run the named nodes of `model` in FP16, with casts at the border; return their number.

    Nodes whose weights do not fit into FP16 keep FP32, and so do those whose type does not follow from their inputs'.
    """
    return _Conversion(model, names).run()


class _Conversion:
    """One conversion: rebuilds the list of nodes in order."""

    def __init__(self, model: Any, names: frozenset[str]) -> None:  # noqa: ANN401
        onnx = import_onnx()
        self._onnx = onnx
        self._graph = model.graph
        inferred = onnx.shape_inference.infer_shapes(model)
        values = (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
        self._types = {value.name: value.type.tensor_type.elem_type for value in values}
        self._weights = {each.name: each for each in model.graph.initializer}
        self._types |= {name: each.data_type for name, each in self._weights.items()}
        self._halved = {node.name for node in model.graph.node if node.name in names and self._fits(node)}
        self._halves: dict[str, str] = {}
        self._nodes: list[Any] = []

    def run(self) -> int:
        """Convert in place."""
        for node in list(self._graph.node):
            if node.name in self._halved:
                self._convert(node)
            else:
                self._nodes.append(node)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        used = {name for node in self._graph.node for name in node.input}
        unused = [each for each in self._graph.initializer if each.name not in used]
        for each in unused:
            self._graph.initializer.remove(each)
        del self._graph.value_info[:]
        return len(self._halved)

    def _convert(self, node: Any) -> None:  # noqa: ANN401
        fixed = _ALWAYS_FP32_INPUTS.get(node.op_type, ())
        for index, name in enumerate(node.input):
            if index not in fixed and self._is_float(name):
                node.input[index] = self._half_of(name)
        outputs = [(index, name) for index, name in enumerate(node.output) if self._is_float(name)]
        self._nodes.append(node)
        for index, name in outputs:
            node.output[index] = self._halves[name] = f"{name}_fp16"
            # the FP32 value under its old name, for readers outside; left out below if there are none
            if self._is_read_outside(name):
                self._nodes.append(self._cast(f"{name}_fp16", name, self._onnx.TensorProto.FLOAT))

    def _half_of(self, name: str) -> str:
        if name not in self._halves:
            half = f"{name}_fp16"
            if name in self._weights:
                values = self._onnx.numpy_helper.to_array(self._weights[name]).astype(np.float16)
                self._graph.initializer.append(self._onnx.numpy_helper.from_array(values, half))
            else:
                self._nodes.append(self._cast(name, half, self._onnx.TensorProto.FLOAT16))
            self._halves[name] = half
        return self._halves[name]

    def _cast(self, source: str, target: str, to: int) -> Any:  # noqa: ANN401
        return self._onnx.helper.make_node("Cast", [source], [target], name=f"{target}_cast", to=to)

    def _is_float(self, name: str) -> bool:
        return bool(name) and self._types.get(name) == self._onnx.TensorProto.FLOAT

    def _is_read_outside(self, name: str) -> bool:
        if any(output.name == name for output in self._graph.output):
            return True
        return any(name in node.input for node in self._graph.node if node.name not in self._halved)

    def _fits(self, node: Any) -> bool:  # noqa: ANN401
        if node.op_type in _TYPED_BY_ATTRIBUTE or not any(self._is_float(name) for name in node.input):
            return False
        for name in node.input:
            if name in self._weights and self._is_float(name):
                values = self._onnx.numpy_helper.to_array(self._weights[name])
                if values.size and float(np.abs(values).max()) > _FP16_MAX:
                    return False
        return True

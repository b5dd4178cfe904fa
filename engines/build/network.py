"""An ONNX file as a TensorRT network: parsing, with unsupported operators named, and its precision."""

from pathlib import Path
from typing import Any

from forebay_server.engines.build.onnx_file import HEAVY_OPS, import_onnx
from forebay_server.engines.errors import ModelFileError
from forebay_server.engines.trt.library import Library

_MAX_ERRORS = 5


def parse_network(library: Library, builder: Any, source: Path) -> tuple[Any, Any]:  # noqa: ANN401
    """Return (network, parser); the parser owns data that the network refers to. Raises ModelFileError."""
    trt = library.trt
    flags = 0
    if library.name == "tensorrt" and library.major < 11:  # later releases are always strongly typed
        flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, library.logger)
    mark = library.log.mark()
    if not parser.parse_from_file(str(source)):
        problems = [_describe(parser.get_error(index)) for index in range(min(parser.num_errors, _MAX_ERRORS))]
        text = "; ".join(dict.fromkeys(problems)) or library.errors_of(mark)
        raise ModelFileError(f"{source}: {library.name} {library.version} cannot take it: {text}")
    return network, parser


def _describe(error: Any) -> str:  # noqa: ANN401
    operator = error.node_operator() if hasattr(error, "node_operator") else ""
    where = f"operator {operator} ({error.node_name()}): " if operator else ""
    return f"{where}{' '.join(str(error.desc()).split())}"


def precision_of(model: Any) -> str:  # noqa: ANN401
    """Return `int8`, `fp16` or `fp32`: the precision of the operators with weights of an ONNX model."""
    onnx = import_onnx()
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        return "int8"
    inferred = onnx.shape_inference.infer_shapes(model)
    values = (*inferred.graph.value_info, *inferred.graph.input)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    heavy = [node for node in model.graph.node if node.op_type in HEAVY_OPS]
    halves = [node for node in heavy if types.get(node.input[0]) == onnx.TensorProto.FLOAT16]
    return "fp16" if halves else "fp32"

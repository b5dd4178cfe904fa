"""The declarations of an ONNX file: inputs, outputs and metadata, read without a library for ONNX or a session.

The whole file is parsed, but no node is looked at. Limits bound everything that is kept. Pure but for reading the file.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError

from forebay_server.engines.errors import ModelFileError
from forebay_server.engines.model_file import require_model_file
from forebay_server.engines.onnx_specs import NodeInfo
from forebay_server.engines.onnx_wire import onnx_model_pb2 as wire

MAX_FILE_BYTES = (1 << 31) - 1  # of a protobuf message; larger models keep their weights in other files
MAX_ENTRIES = 256  # of metadata; exporters write about ten
MAX_KEY_CHARACTERS = 256
MAX_VALUE_CHARACTERS = 1 << 20  # the names of a thousand classes are 30 KB
MAX_TENSORS = 4096  # inputs, and outputs
IN_ANOTHER_FILE = 1  # TensorProto.data_location

_TYPES = {
    1: "float",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    8: "string",
    9: "bool",
    10: "float16",
    11: "double",
    12: "uint32",
    13: "uint64",
    16: "bfloat16",
}
"""TensorProto.data_type -> ONNX Runtime's word for it, as in `engines.onnx_specs`."""


@dataclass(frozen=True, slots=True)
class OnnxHead:
    """The declarations of one file.

    Attributes:
        inputs: without the weights, which old files list among them.
        outputs: in the file's order.
        metadata: at most MAX_ENTRIES; a value beyond MAX_VALUE_CHARACTERS is cut one character behind them.
        has_external_data: whether weights lie in other files.
        nbytes: of the file, without those.
    """

    inputs: tuple[NodeInfo, ...]
    outputs: tuple[NodeInfo, ...]
    metadata: Mapping[str, str]
    has_external_data: bool
    nbytes: int


def read_head(path: Path) -> OnnxHead:
    """Read the declarations of an ONNX file. Blocks: on the disk.

    Raises:
        ModelFileError: no ONNX file, or one that exceeds a limit.
    """
    return head_of(read_model(path), path)


def read_model(path: Path) -> wire.ModelProto:
    """Parse an ONNX file. Blocks: on the disk. Raises ModelFileError: no ONNX file, or one of 2 GB and more."""
    require_model_file(path)
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ModelFileError(f"{path}: has 2 GB or more: save the model with its weights as external data")
    try:
        model = wire.ModelProto.FromString(path.read_bytes())
    except (DecodeError, MemoryError) as error:
        raise ModelFileError(f"{path}: not an ONNX file, or a truncated one: copy it again") from error
    if not (model.graph.node or model.graph.output):
        raise ModelFileError(f"{path}: not an ONNX file, or one without operators")
    return model


def head_of(model: wire.ModelProto, path: Path) -> OnnxHead:
    """Return the declarations of a parsed file; `path` is for messages. Raises ModelFileError: a limit, a bad name."""
    graph = model.graph
    if max(len(graph.input), len(graph.output)) > MAX_TENSORS + len(graph.initializer):
        raise ModelFileError(f"{path}: has more than {MAX_TENSORS} inputs or outputs")
    weights = {weight.name for weight in graph.initializer}
    return OnnxHead(
        inputs=tuple(_node(value, path) for value in graph.input if value.name not in weights),
        outputs=tuple(_node(value, path) for value in graph.output),
        metadata=_metadata(model.metadata_props),
        has_external_data=any(weight.data_location == IN_ANOTHER_FILE for weight in graph.initializer),
        nbytes=path.stat().st_size,
    )


def _metadata(entries: Iterable[wire.StringStringEntryProto]) -> dict[str, str]:
    kept: dict[str, str] = {}
    for entry in entries:
        if len(kept) == MAX_ENTRIES:
            break
        if not all(isinstance(text, str) for text in (entry.key, entry.value)):
            continue  # bytes: protobuf's way to give text that is not UTF-8
        if len(entry.key) <= MAX_KEY_CHARACTERS:
            kept[entry.key] = entry.value[: MAX_VALUE_CHARACTERS + 1]  # its reader says that it is too long
    return kept


def _node(value: wire.ValueInfoProto, path: Path) -> NodeInfo:
    tensor = value.type.tensor_type
    if not all(isinstance(name, str) for name in (value.name, *(dim.dim_param for dim in tensor.shape.dim))):
        raise ModelFileError(f"{path}: an input or an output has a name that is not UTF-8: rename it")
    kind = _TYPES.get(tensor.elem_type, "unknown") if value.type.HasField("tensor_type") else "unknown"
    return NodeInfo(value.name, f"tensor({kind})", tuple(_dim(each) for each in tensor.shape.dim))


def _dim(dim: wire.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    return str(dim.dim_param) or None

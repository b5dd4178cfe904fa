"""Open Inference requests to calls, checked whole. Pure: no I/O, no state.

Checks come in Triton's order and in its words, since clients match on them: parameters, number and names of inputs,
datatype, shape, batch, data, outputs.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from forebay.wire import inference_pb2 as pb
from service.errors import InvalidRequestError
from service.frontend import inference_tensors as tensors
from service.frontend.inference_face import ModelFace, TensorFace
from service.frontend.inference_options import CallOptions, read_options, value_of

BATCH_NOTE = (
    "NOTE: Setting a non-zero max_batch_size in the model config requires a batch dimension to be prepended to each "
    "input shape. If you want to specify the full shape including the batch dim in your input dims config, try setting "
    "max_batch_size to zero. See the model configuration docs for more info on max_batch_size."
)
MAX_SHOWN = 64  # letters of a client's own words in a message


@dataclass(frozen=True, slots=True)
class RegionRange:
    """A tensor's place in shared memory, as a request names it."""

    region: str
    offset: int
    byte_size: int


ReadRegion = Callable[[RegionRange], tensors.Bytes]
"""Returns the bytes of a range. Raises InferenceError."""


@dataclass(frozen=True, slots=True)
class WantedOutput:
    """One output of a response.

    Attributes:
        face: which.
        classes: send that many classes instead of the tensor; 0 for the tensor.
        region: where to put it instead of into the response; None for the response.
    """

    face: TensorFace
    classes: int = 0
    region: RegionRange | None = None


@dataclass(slots=True)
class Call:
    """A request that was found to be right.

    Attributes:
        face: the model.
        request_id: as the client named it.
        options: parameters.
        rows: of the request.
        shapes: of every input as the engine takes it, without rows, in the engine's order.
        data: raw bytes of every input, in the engine's order; valid while the message lives.
        wanted: outputs in the order asked for.
    """

    face: ModelFace
    request_id: str
    options: CallOptions
    rows: int
    shapes: list[tuple[int, ...]]
    data: list[tensors.Bytes]
    wanted: tuple[WantedOutput, ...]

    @property
    def batch_key(self) -> Hashable:
        """Requests of one key may share a batch."""
        return None if self.face.is_fixed else tuple(self.shapes)


def parse(data: bytes) -> pb.ModelInferRequest:
    """Parse a request. Raises InvalidRequestError for bytes that are none."""
    try:
        return pb.ModelInferRequest.FromString(data)
    except DecodeError:
        raise InvalidRequestError("the message is no ModelInferRequest") from None


def decode(request: pb.ModelInferRequest, face: ModelFace, read_region: ReadRegion) -> Call:
    """Check a request against its model.

    Raises:
        InvalidRequestError: something is wrong with it.
        InferenceError: from `read_region`.
    """
    options = read_options(request.parameters)
    inputs = _inputs_by_name(request, face)
    rows = _check_shapes(inputs, face)
    data = _data(request, inputs, face, read_region)
    return Call(
        face=face,
        request_id=request.id,
        options=options,
        rows=rows,
        shapes=[_engine_shape(face, tensor, inputs[tensor.name]) for tensor in face.inputs.values()],
        data=data,
        wanted=_wanted(request, face),
    )


def _inputs_by_name(request: pb.ModelInferRequest, face: ModelFace) -> dict[str, pb.ModelInferRequest.InferInputTensor]:
    inputs: dict[str, pb.ModelInferRequest.InferInputTensor] = {}
    for tensor in request.inputs:
        if tensor.name in inputs:
            raise InvalidRequestError(f"input '{tensor.name[:MAX_SHOWN]}' already exists in request")
        inputs[tensor.name] = tensor
    for name in inputs:
        if name not in face.inputs:
            raise InvalidRequestError(f"unexpected inference input '{name[:MAX_SHOWN]}' for model '{face.name}'")
    missing = [name for name in face.inputs if name not in inputs]
    if missing:
        raise InvalidRequestError(
            f"expected {len(face.inputs)} inputs but got {len(inputs)} inputs for model '{face.name}'. Got input(s) "
            f"{_quoted(inputs)}, but missing required input(s) {_quoted(missing)}. Please provide all required "
            "input(s)."
        )
    return inputs


def _quoted(names: Iterable[str]) -> str:
    return "[" + ",".join(f"'{name}'" for name in names) + "]"


def _check_shapes(inputs: dict[str, pb.ModelInferRequest.InferInputTensor], face: ModelFace) -> int:
    """Check datatypes and shapes; return the rows."""
    rows: int | None = None
    for name, tensor in inputs.items():
        expected = face.inputs[name]
        if tensor.datatype != expected.datatype:
            raise InvalidRequestError(
                f"inference input '{name}' data-type is '{tensor.datatype[:MAX_SHOWN]}', but model '{face.name}' "
                f"expects '{expected.datatype}'"
            )
        shape = tuple(tensor.shape)
        if not face.has_batch:
            _check_shape(shape, shape, expected, face)
            continue
        if not shape:
            raise InvalidRequestError(
                f"input '{name}' has no shape but model requires batch dimension for '{face.name}'"
            )
        _check_shape(shape[1:], shape, expected, face)
        if rows is not None and shape[0] != rows:
            raise InvalidRequestError(f"input '{name}' batch size does not match other inputs for '{face.name}'")
        rows = shape[0]
    rows = 1 if rows is None else rows
    if rows > face.max_batch_size:
        raise InvalidRequestError(f"inference request batch-size must be <= {face.max_batch_size} for '{face.name}'")
    if rows < 1:
        raise InvalidRequestError(f"inference request batch-size must be >= 1 for '{face.name}'")
    return rows


def _check_shape(inner: tuple[int, ...], shape: tuple[int, ...], expected: TensorFace, face: ModelFace) -> None:
    is_right = len(inner) == len(expected.shape) and all(
        dim == wanted or (wanted == -1 and dim >= 0) for dim, wanted in zip(inner, expected.shape, strict=True)
    )
    if not is_right:
        full = (-1, *expected.shape) if face.has_batch else expected.shape
        note = f" {BATCH_NOTE}" if face.has_batch else ""
        raise InvalidRequestError(
            f"unexpected shape for input '{expected.name}' for model '{face.name}'. Expected {_shown(full)}, "
            f"got {_shown(shape)}.{note}"
        )


def _shown(shape: tuple[int, ...]) -> str:
    text = ",".join(str(dim) for dim in shape[:16])
    return f"[{text}{',...' if len(shape) > 16 else ''}]"


def _engine_shape(face: ModelFace, tensor: TensorFace, sent: pb.ModelInferRequest.InferInputTensor) -> tuple[int, ...]:
    """Return the shape of an input, without rows, as the engine takes it."""
    if tensor.is_fixed or len(tensor.shape) != len(tensor.spec.shape):
        return tensor.spec.shape
    return tuple(sent.shape)[1:] if face.has_batch else tuple(sent.shape)


def _data(
    request: pb.ModelInferRequest,
    inputs: dict[str, pb.ModelInferRequest.InferInputTensor],
    face: ModelFace,
    read_region: ReadRegion,
) -> list[tensors.Bytes]:
    raws = request.raw_input_contents
    data: dict[str, tensors.Bytes] = {}
    next_raw = 0
    for name, sent in inputs.items():
        tensor = face.inputs[name]
        elements = tensors.elements_of(tuple(sent.shape))
        region = region_range(sent.parameters)
        if region is not None:
            data[name] = read_region(region)
        elif raws:
            if sent.HasField("contents"):
                raise InvalidRequestError(
                    f"contents field must not be specified when using raw_input_contents for '{name}' for model "
                    f"'{face.name}'"
                )
            if next_raw >= len(raws):
                raise _no_data(name, face)
            data[name] = raws[next_raw]
            next_raw += 1
        else:
            data[name] = _typed(tensor, sent, elements, face)
        if tensor.datatype != "BYTES":
            tensors.check_byte_size(tensor, data[name], elements, face.name)
    if next_raw < len(raws):
        raise InvalidRequestError(
            f"unexpected explicit tensor data for input tensor '{list(inputs)[-1] if inputs else ''}' for model "
            f"'{face.name}': {len(raws)} raw_input_contents for {next_raw} inputs"
        )
    return [data[name] for name in face.inputs]


def _typed(tensor: TensorFace, sent: pb.ModelInferRequest.InferInputTensor, elements: int, face: ModelFace) -> bytes:
    if not sent.HasField("contents"):
        if elements == 0:
            return b""
        raise _no_data(tensor.name, face)
    return tensors.typed_to_bytes(tensor, sent.contents, elements, face.name)


def _no_data(name: str, face: ModelFace) -> InvalidRequestError:
    return InvalidRequestError(f"unable to find data for input tensor '{name}' for model '{face.name}' in request.")


def region_range(parameters: Mapping[str, pb.InferParameter]) -> RegionRange | None:
    """Return where in shared memory a tensor lies; None if it does not. Raises InvalidRequestError."""
    if not parameters or "shared_memory_region" not in parameters:
        return None
    region = value_of(parameters["shared_memory_region"], ("string_param",), "shared_memory_region")
    if "shared_memory_byte_size" not in parameters:
        raise InvalidRequestError("'shared_memory_byte_size' must be given with 'shared_memory_region'")
    byte_size = value_of(parameters["shared_memory_byte_size"], ("int64_param",), "shared_memory_byte_size")
    offset: bool | int | float | str = 0
    if "shared_memory_offset" in parameters:
        offset = value_of(parameters["shared_memory_offset"], ("int64_param",), "shared_memory_offset")
    return RegionRange(str(region), int(offset), int(byte_size))


def _wanted(request: pb.ModelInferRequest, face: ModelFace) -> tuple[WantedOutput, ...]:
    if not request.outputs:
        return tuple(WantedOutput(tensor) for tensor in face.outputs.values())
    wanted: dict[str, WantedOutput] = {}
    for output in request.outputs:
        name = output.name
        if name not in face.outputs:
            raise InvalidRequestError(f"unexpected inference output '{name[:MAX_SHOWN]}' for model '{face.name}'")
        if name in wanted:
            raise InvalidRequestError(f"output '{name}' already exists in request")
        region = region_range(output.parameters)
        classes = 0
        if "classification" in output.parameters:
            classes = _classes(output.parameters["classification"], name, is_shared=region is not None)
        wanted[name] = WantedOutput(face.outputs[name], classes, region)
    return tuple(wanted.values())


def _classes(parameter: pb.InferParameter, name: str, *, is_shared: bool) -> int:
    classes = int(value_of(parameter, ("int64_param",), "classification"))
    if is_shared:
        raise InvalidRequestError(
            f"output '{name}': shared memory can't be set with 'classification'; leave one of them out"
        )
    if classes < 1:
        raise InvalidRequestError(f"parameter 'classification' of output '{name}' is {classes}; it must be at least 1")
    return classes


def arrays_of(call: Call) -> Iterable[NDArray[Any]]:
    """Return the inputs as arrays of (rows, *shape), for a model that runs unbound. Raises InvalidRequestError."""
    face = call.face
    for tensor, shape, data in zip(face.inputs.values(), call.shapes, call.data, strict=True):
        full = (call.rows, *shape) if face.has_batch else shape
        if tensor.datatype == "BYTES":
            strings = tensors.split_strings(tensor, data, tensors.elements_of(full), face.name)
            yield tensors.strings_to_array(strings, full, tensor, face.name)
        else:
            yield np.frombuffer(data, tensor.spec.dtype).reshape(full)

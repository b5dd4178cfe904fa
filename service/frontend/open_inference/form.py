"""Everything about an Open Inference request but its data: checked once, and cached for all equal requests.

The requests of a client differ only in the id and the data. So the checks of parameters, names, datatypes, shapes and
outputs make a `CallForm`, which `service.frontend.open_inference.lookup` caches; the next request with the same head
reuses it. Checks have Triton's order and messages, because clients match on them. Pure.
"""

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from forebay.wire import inference_pb2 as pb
from forebay_server.service.errors import InvalidRequestError
from forebay_server.service.frontend.messages import Bytes
from forebay_server.service.frontend.open_inference import tensors
from forebay_server.service.frontend.open_inference.head import TypedContents
from forebay_server.service.frontend.open_inference.options import CallOptions, read_options, value_of
from forebay_server.service.frontend.open_inference.schema import ModelFace, TensorFace
from forebay_server.service.frontend.open_inference.typed import SHORT_BYTES, LongContents, typed_to_bytes

BATCH_NOTE = (
    "NOTE: Setting a non-zero max_batch_size in the model config requires a batch dimension to be prepended to each "
    "input shape. If you want to specify the full shape including the batch dim in your input dims config, try setting "
    "max_batch_size to zero. See the model configuration docs for more info on max_batch_size."
)
MAX_ELEMENTS = 1 << 40
LIGHT_BYTES = 1 << 20  # of data that are copied: 0.1 ms
MAX_SHOWN = 64  # letters of a client's own words in a message
FINAL_RESPONSE = "triton_final_response"
Input = pb.ModelInferRequest.InferInputTensor


@dataclass(frozen=True, slots=True)
class RegionRange:
    """A tensor's place in shared memory, as a request names it."""

    region: str
    offset: int
    byte_size: int


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


@dataclass(frozen=True, slots=True)
class InputPlace:
    """Where the data of one input are; exactly one of the last three is set.

    Attributes:
        tensor: which.
        elements: how many it has, all rows together.
        nbytes: that its data must have; None for BYTES.
        raw_index: in raw_input_contents.
        region: in shared memory.
        typed: sent as typed contents; made raw, unless they are long.
    """

    tensor: TensorFace
    elements: int
    nbytes: int | None
    raw_index: int | None = None
    region: RegionRange | None = None
    typed: Bytes | LongContents | None = None


@dataclass(frozen=True, eq=False)
class CallForm:
    """A checked request without id and data.

    Attributes:
        face: the model.
        version: as the request names it; may be empty.
        options: parameters.
        rows: of the request.
        shapes: of every input as the engine takes it, without rows, in the engine's order; None for one left out.
        places: of the data of those that are not left out, in the engine's order.
        wanted: outputs in the order asked for.
        batch_key: requests of one key may share a batch.
    """

    face: ModelFace
    version: str
    options: CallOptions
    rows: int
    shapes: tuple[tuple[int, ...] | None, ...]
    places: tuple[InputPlace, ...]
    wanted: tuple[WantedOutput, ...]
    batch_key: Hashable

    @cached_property
    def is_plain(self) -> bool:
        """Whether all data are the raw contents, in the engine's order, one for each input."""
        return all(place.raw_index == index for index, place in enumerate(self.places))

    @cached_property
    def is_light(self) -> bool:
        """Whether the event loop makes a request of it in less than a millisecond, whatever its data are."""
        return all(
            place.nbytes is not None and not isinstance(place.typed, LongContents) for place in self.places
        ) and (sum(place.nbytes or 0 for place in self.places) <= LIGHT_BYTES)

    @cached_property
    def has_regions(self) -> bool:
        """Whether an output is wanted in shared memory."""
        return any(wanted.region is not None for wanted in self.wanted)

    @cached_property
    def has_light_answer(self) -> bool:
        """Whether the event loop makes a response in less than a millisecond, whatever the outputs are."""
        return not any(wanted.classes or wanted.face.datatype == "BYTES" for wanted in self.wanted)

    @cached_property
    def response_heads(self) -> tuple[bytes, bytes] | None:
        """The beginning of every response, alone and in a stream; None if it depends on the outputs."""
        if any(wanted.classes or wanted.region or not wanted.face.is_fixed for wanted in self.wanted):
            return None
        response = pb.ModelInferResponse(model_name=self.face.name, model_version=self.face.version)
        for wanted in self.wanted:
            face = wanted.face
            shape = (self.rows, *face.shape) if self.face.has_batch else face.shape
            response.outputs.add(name=face.name, datatype=face.datatype, shape=shape)
        alone = response.SerializeToString()
        response.parameters[FINAL_RESPONSE].bool_param = True
        return alone, response.SerializeToString()


def read_form(
    request: pb.ModelInferRequest, raw_count: int, face: ModelFace, contents: TypedContents | None = None
) -> CallForm:
    """Check a request against its model.

    Args:
        request: everything but raw_input_contents.
        raw_count: how many raw_input_contents there are.
        face: the model.
        contents: typed contents that are not in the request.

    Raises:
        InvalidRequestError: something is wrong with it.
    """
    options = read_options(request.parameters)
    inputs = _inputs_by_name(request, face)
    rows = _check_shapes(inputs, face)
    left_out = {request.inputs[index].name: wire for index, wire in (contents or {}).items()}
    places = _places(inputs, face, raw_count, left_out)
    shapes = tuple(
        _engine_shape(face, tensor, inputs[name]) if name in inputs else None for name, tensor in face.inputs.items()
    )
    return CallForm(
        face=face,
        version=request.model_version,
        options=options,
        rows=rows,
        shapes=shapes,
        places=tuple(places[name] for name in face.inputs if name in places),
        wanted=_wanted(request, face),
        batch_key=None if face.is_fixed else shapes,
    )


def _inputs_by_name(request: pb.ModelInferRequest, face: ModelFace) -> dict[str, Input]:
    inputs: dict[str, Input] = {}
    for tensor in request.inputs:
        if tensor.name in inputs:
            raise InvalidRequestError(f"input '{tensor.name[:MAX_SHOWN]}' already exists in request")
        inputs[tensor.name] = tensor
    for name in inputs:
        if name not in face.inputs:
            raise InvalidRequestError(f"unexpected inference input '{name[:MAX_SHOWN]}' for model '{face.name}'")
    missing = [name for name, tensor in face.inputs.items() if name not in inputs and not tensor.spec.is_optional]
    if missing:
        least = sum(not tensor.spec.is_optional for tensor in face.inputs.values())
        expected = f"{len(face.inputs)} inputs"
        if least < len(face.inputs):
            expected = f"number of inputs between {least} and {len(face.inputs)}"
        raise InvalidRequestError(
            f"expected {expected} but got {len(inputs)} inputs for model '{face.name}'. Got input(s) "
            f"{_quoted(inputs)}, but missing required input(s) {_quoted(missing)}. Please provide all required "
            "input(s)."
        )
    return inputs


def _quoted(names: Iterable[str]) -> str:
    return "[" + ",".join(f"'{name}'" for name in names) + "]"


def _check_shapes(inputs: dict[str, Input], face: ModelFace) -> int:
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
    if 0 in inner and math.prod(dim or 1 for dim in inner) > MAX_ELEMENTS:  # no number of bytes would be wrong
        raise InvalidRequestError(f"input '{expected.name}' has a dimension too large for '{face.name}'")


def _shown(shape: tuple[int, ...]) -> str:
    text = ",".join(str(dim) for dim in shape[:16])
    return f"[{text}{',...' if len(shape) > 16 else ''}]"


def _engine_shape(face: ModelFace, tensor: TensorFace, sent: Input) -> tuple[int, ...]:
    """Return the shape of an input, without rows, as the engine takes it."""
    if tensor.is_fixed:
        return tensor.spec.shape
    return tensor.to_engine(tuple(sent.shape)[1:] if face.has_batch else tuple(sent.shape))


def _places(
    inputs: dict[str, Input], face: ModelFace, raw_count: int, contents: Mapping[str, memoryview]
) -> dict[str, InputPlace]:
    """Return where the data of every input are, by name."""
    places: dict[str, InputPlace] = {}
    next_raw = 0
    for name, sent in inputs.items():
        tensor = face.inputs[name]
        elements = tensors.elements_of(tuple(sent.shape))
        nbytes = None if tensor.datatype == "BYTES" else elements * tensor.spec.dtype.itemsize
        region = region_range(sent.parameters)
        if region is not None:
            places[name] = InputPlace(tensor, elements, nbytes, region=region)
        elif raw_count:
            if sent.HasField("contents") or name in contents:
                raise InvalidRequestError(
                    f"contents field must not be specified when using raw_input_contents for '{name}' for model "
                    f"'{face.name}'"
                )
            if next_raw >= raw_count:
                raise _no_data(name, face)
            places[name] = InputPlace(tensor, elements, nbytes, raw_index=next_raw)
            next_raw += 1
        else:
            places[name] = InputPlace(
                tensor, elements, nbytes, typed=_typed(tensor, sent, contents.get(name), elements, face)
            )
    if next_raw < raw_count:
        raise InvalidRequestError(
            f"unexpected explicit tensor data for input tensor '{list(inputs)[-1] if inputs else ''}' for model "
            f"'{face.name}': {raw_count} raw_input_contents for {next_raw} inputs"
        )
    return places


def _typed(
    tensor: TensorFace, sent: Input, contents: memoryview | None, elements: int, face: ModelFace
) -> Bytes | LongContents:
    if contents is None and not sent.HasField("contents"):
        if elements == 0:
            return b""
        raise _no_data(tensor.name, face)
    wire: Bytes = sent.contents.SerializeToString() if contents is None else contents
    if len(wire) > SHORT_BYTES:
        return LongContents(tensor, wire, elements, face.name)
    return typed_to_bytes(tensor, wire, elements, face.name)


def _no_data(name: str, face: ModelFace) -> InvalidRequestError:
    return InvalidRequestError(f"unable to find data for input tensor '{name}' for model '{face.name}' in request.")


def region_range(parameters: Mapping[str, pb.InferParameter]) -> RegionRange | None:
    """Return a tensor's range in shared memory; None if there is none. Raises InvalidRequestError."""
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
            classes = _classes(output.parameters["classification"], face.outputs[name], is_shared=region is not None)
        wanted[name] = WantedOutput(face.outputs[name], classes, region)
    return tuple(wanted.values())


def _classes(parameter: pb.InferParameter, output: TensorFace, *, is_shared: bool) -> int:
    name = output.name
    if output.datatype in ("BYTES", "BF16"):
        raise InvalidRequestError(
            f"class result not available for output due to unsupported type '{output.datatype}': output '{name}' has "
            "no classes"
        )
    if output.is_fixed:
        tensors.check_classes(name, tensors.elements_of(output.shape))  # before it is executed
    classes = int(value_of(parameter, ("int64_param",), "classification"))
    if is_shared:
        raise InvalidRequestError(
            f"output '{name}': shared memory can't be set with 'classification'; leave one of them out"
        )
    if classes < 1:
        raise InvalidRequestError(f"parameter 'classification' of output '{name}' is {classes}; it must be at least 1")
    return classes

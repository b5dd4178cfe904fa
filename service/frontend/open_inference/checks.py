"""Checks an Open Inference request against its model and makes its template.

Checks have Triton's order and messages, because clients match on them. Pure.
"""

import math
from collections.abc import Iterable, Mapping

from forebay.wire import inference_pb2 as pb
from forebay_server.service.errors import InvalidRequestError
from forebay_server.service.frontend.messages import Bytes
from forebay_server.service.frontend.open_inference import tensors
from forebay_server.service.frontend.open_inference.head import TypedContents
from forebay_server.service.frontend.open_inference.options import read_options, value_of
from forebay_server.service.frontend.open_inference.region_range import region_range
from forebay_server.service.frontend.open_inference.schema import ModelSchema, TensorSchema
from forebay_server.service.frontend.open_inference.template import CallTemplate, InputSource, WantedOutput
from forebay_server.service.frontend.open_inference.typed import SHORT_BYTES, LongContents, typed_to_bytes

BATCH_NOTE = (
    "NOTE: Setting a non-zero max_batch_size in the model config requires a batch dimension to be prepended to each "
    "input shape. If you want to specify the full shape including the batch dim in your input dims config, try setting "
    "max_batch_size to zero. See the model configuration docs for more info on max_batch_size."
)
MAX_ELEMENTS = 1 << 40
MAX_SHOWN = 64  # letters of a client's own words in a message
Input = pb.ModelInferRequest.InferInputTensor


def read_template(
    request: pb.ModelInferRequest, raw_count: int, schema: ModelSchema, contents: TypedContents | None = None
) -> CallTemplate:
    """Check a request against its model.

    Args:
        request: everything but raw_input_contents.
        raw_count: how many raw_input_contents there are.
        schema: the model.
        contents: typed contents that are not in the request.

    Raises:
        InvalidRequestError: something is wrong with it.
    """
    options = read_options(request.parameters)
    inputs = _inputs_by_name(request, schema)
    rows = _check_shapes(inputs, schema)
    left_out = {request.inputs[index].name: wire for index, wire in (contents or {}).items()}
    sources = _sources(inputs, schema, raw_count, left_out)
    shapes = tuple(
        _engine_shape(schema, tensor, inputs[name]) if name in inputs else None
        for name, tensor in schema.inputs.items()
    )
    return CallTemplate(
        schema=schema,
        version=request.model_version,
        options=options,
        rows=rows,
        shapes=shapes,
        sources=tuple(sources[name] for name in schema.inputs if name in sources),
        wanted=_wanted(request, schema),
        batch_key=None if schema.is_fixed else shapes,
    )


def _inputs_by_name(request: pb.ModelInferRequest, schema: ModelSchema) -> dict[str, Input]:
    inputs: dict[str, Input] = {}
    for tensor in request.inputs:
        if tensor.name in inputs:
            raise InvalidRequestError(f"input '{tensor.name[:MAX_SHOWN]}' already exists in request")
        inputs[tensor.name] = tensor
    for name in inputs:
        if name not in schema.inputs:
            raise InvalidRequestError(f"unexpected inference input '{name[:MAX_SHOWN]}' for model '{schema.name}'")
    missing = [name for name, tensor in schema.inputs.items() if name not in inputs and not tensor.spec.is_optional]
    if missing:
        least = sum(not tensor.spec.is_optional for tensor in schema.inputs.values())
        expected = f"{len(schema.inputs)} inputs"
        if least < len(schema.inputs):
            expected = f"number of inputs between {least} and {len(schema.inputs)}"
        raise InvalidRequestError(
            f"expected {expected} but got {len(inputs)} inputs for model '{schema.name}'. Got input(s) "
            f"{_quoted(inputs)}, but missing required input(s) {_quoted(missing)}. Please provide all required "
            "input(s)."
        )
    return inputs


def _quoted(names: Iterable[str]) -> str:
    return "[" + ",".join(f"'{name}'" for name in names) + "]"


def _check_shapes(inputs: dict[str, Input], schema: ModelSchema) -> int:
    """Check datatypes and shapes; return the rows."""
    rows: int | None = None
    for name, tensor in inputs.items():
        expected = schema.inputs[name]
        if tensor.datatype != expected.datatype:
            raise InvalidRequestError(
                f"inference input '{name}' data-type is '{tensor.datatype[:MAX_SHOWN]}', but model '{schema.name}' "
                f"expects '{expected.datatype}'"
            )
        shape = tuple(tensor.shape)
        if not schema.has_batch:
            _check_shape(shape, shape, expected, schema)
            continue
        if not shape:
            raise InvalidRequestError(
                f"input '{name}' has no shape but model requires batch dimension for '{schema.name}'"
            )
        _check_shape(shape[1:], shape, expected, schema)
        if rows is not None and shape[0] != rows:
            raise InvalidRequestError(f"input '{name}' batch size does not match other inputs for '{schema.name}'")
        rows = shape[0]
    rows = 1 if rows is None else rows
    if rows > schema.max_batch_size:
        raise InvalidRequestError(
            f"inference request batch-size must be <= {schema.max_batch_size} for '{schema.name}'"
        )
    if rows < 1:
        raise InvalidRequestError(f"inference request batch-size must be >= 1 for '{schema.name}'")
    return rows


def _check_shape(inner: tuple[int, ...], shape: tuple[int, ...], expected: TensorSchema, schema: ModelSchema) -> None:
    is_right = len(inner) == len(expected.shape) and all(
        dim == wanted or (wanted == -1 and dim >= 0) for dim, wanted in zip(inner, expected.shape, strict=True)
    )
    if not is_right:
        full = (-1, *expected.shape) if schema.has_batch else expected.shape
        note = f" {BATCH_NOTE}" if schema.has_batch else ""
        raise InvalidRequestError(
            f"unexpected shape for input '{expected.name}' for model '{schema.name}'. Expected {_shown(full)}, "
            f"got {_shown(shape)}.{note}"
        )
    if 0 in inner and math.prod(dim or 1 for dim in inner) > MAX_ELEMENTS:  # no number of bytes would be wrong
        raise InvalidRequestError(f"input '{expected.name}' has a dimension too large for '{schema.name}'")


def _shown(shape: tuple[int, ...]) -> str:
    text = ",".join(str(dim) for dim in shape[:16])
    return f"[{text}{',...' if len(shape) > 16 else ''}]"


def _engine_shape(schema: ModelSchema, tensor: TensorSchema, sent: Input) -> tuple[int, ...]:
    """Return the shape of an input, without rows, as the engine takes it."""
    if tensor.is_fixed:
        return tensor.spec.shape
    return tensor.to_engine(tuple(sent.shape)[1:] if schema.has_batch else tuple(sent.shape))


def _sources(
    inputs: dict[str, Input], schema: ModelSchema, raw_count: int, contents: Mapping[str, memoryview]
) -> dict[str, InputSource]:
    """Return where the data of every input are, by name."""
    sources: dict[str, InputSource] = {}
    next_raw = 0
    for name, sent in inputs.items():
        tensor = schema.inputs[name]
        elements = tensors.elements_of(tuple(sent.shape))
        nbytes = None if tensor.datatype == "BYTES" else elements * tensor.spec.dtype.itemsize
        region = region_range(sent.parameters)
        if region is not None:
            sources[name] = InputSource(tensor, elements, nbytes, region=region)
        elif raw_count:
            if sent.HasField("contents") or name in contents:
                raise InvalidRequestError(
                    f"contents field must not be specified when using raw_input_contents for '{name}' for model "
                    f"'{schema.name}'"
                )
            if next_raw >= raw_count:
                raise _no_data(name, schema)
            sources[name] = InputSource(tensor, elements, nbytes, raw_index=next_raw)
            next_raw += 1
        else:
            sources[name] = InputSource(
                tensor, elements, nbytes, typed=_typed(tensor, sent, contents.get(name), elements, schema)
            )
    if next_raw < raw_count:
        raise InvalidRequestError(
            f"unexpected explicit tensor data for input tensor '{list(inputs)[-1] if inputs else ''}' for model "
            f"'{schema.name}': {raw_count} raw_input_contents for {next_raw} inputs"
        )
    return sources


def _typed(
    tensor: TensorSchema, sent: Input, contents: memoryview | None, elements: int, schema: ModelSchema
) -> Bytes | LongContents:
    if contents is None and not sent.HasField("contents"):
        if elements == 0:
            return b""
        raise _no_data(tensor.name, schema)
    wire: Bytes = sent.contents.SerializeToString() if contents is None else contents
    if len(wire) > SHORT_BYTES:
        return LongContents(tensor, wire, elements, schema.name)
    return typed_to_bytes(tensor, wire, elements, schema.name)


def _no_data(name: str, schema: ModelSchema) -> InvalidRequestError:
    return InvalidRequestError(f"unable to find data for input tensor '{name}' for model '{schema.name}' in request.")


def _wanted(request: pb.ModelInferRequest, schema: ModelSchema) -> tuple[WantedOutput, ...]:
    if not request.outputs:
        return tuple(WantedOutput(tensor) for tensor in schema.outputs.values())
    wanted: dict[str, WantedOutput] = {}
    for output in request.outputs:
        name = output.name
        if name not in schema.outputs:
            raise InvalidRequestError(f"unexpected inference output '{name[:MAX_SHOWN]}' for model '{schema.name}'")
        if name in wanted:
            raise InvalidRequestError(f"output '{name}' already exists in request")
        region = region_range(output.parameters)
        classes = 0
        if "classification" in output.parameters:
            classes = _classes(output.parameters["classification"], schema.outputs[name], is_shared=region is not None)
        wanted[name] = WantedOutput(schema.outputs[name], classes, region)
    return tuple(wanted.values())


def _classes(parameter: pb.InferParameter, output: TensorSchema, *, is_shared: bool) -> int:
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

"""Completions of Open Inference calls to responses. Pure: no I/O, no state."""

from typing import Any

from numpy.typing import NDArray

from forebay.wire import inference_pb2 as pb
from forebay_server.service.frontend.messages import Bytes
from forebay_server.service.frontend.open_inference import tensors
from forebay_server.service.frontend.open_inference.codec import Call
from forebay_server.service.frontend.open_inference.template import FINAL_RESPONSE, WantedOutput
from forebay_server.service.frontend.open_inference.wire import response_bytes
from forebay_server.service.request import Completion, OutputArrays

LIGHT_ELEMENTS = 2048  # strings or classes made on the event loop: each 0.5 µs
_SORTED_PER_ELEMENT = 16  # numbers that are sorted in the same time


def is_light_answer(call: Call, completion: Completion) -> bool:
    """Whether `encode` takes the event loop less than two milliseconds; otherwise a worker does it.

    Outputs for shared memory stay on the loop, which owns the regions.
    """
    template = call.template
    if template.has_light_answer or template.has_regions:
        return True
    outputs: OutputArrays = completion.outputs or ()
    elements = 0
    for wanted in template.wanted:
        size = outputs[wanted.tensor.index].size
        if wanted.classes:
            elements += size // _SORTED_PER_ELEMENT + min(size, wanted.classes * template.rows)
        elif wanted.tensor.datatype == "BYTES":
            elements += size
    return elements <= LIGHT_ELEMENTS


def encode(call: Call, completion: Completion, *, in_stream: bool = False) -> bytes:
    """Return the serialised response to an executed call. Thread: any, if it is not `is_light_answer`.

    Args:
        call: the call, which still holds its shared memory.
        completion: with outputs.
        in_stream: for ModelStreamInfer.

    Raises:
        InferenceError: an output cannot be written to shared memory, or has no classes.
    """
    outputs: OutputArrays = completion.outputs or ()
    heads = call.template.response_heads
    if heads is not None:
        raws: list[Bytes] = [tensors.raw_view(outputs[wanted.tensor.index]) for wanted in call.template.wanted]
        return response_bytes(heads[in_stream], call.request_id, raws, in_stream=in_stream)
    response = pb.ModelInferResponse(model_name=call.template.schema.name, model_version=call.template.schema.version)
    raws = [_add_output(response, wanted, outputs[wanted.tensor.index], call) for wanted in call.template.wanted]
    if in_stream:
        response.parameters[FINAL_RESPONSE].bool_param = True
    return response_bytes(response.SerializeToString(), call.request_id, raws, in_stream=in_stream)


def _add_output(response: pb.ModelInferResponse, wanted: WantedOutput, array: NDArray[Any], call: Call) -> Bytes:
    """Describe one output in the response and return its raw bytes."""
    tensor, template = wanted.tensor, call.template
    data: Bytes
    if wanted.classes:
        if array.size:
            tensors.check_classes(tensor.name, array[0].size)
        rows = [tensors.top_classes(row.reshape(-1), wanted.classes, tensor.labels) for row in array]
        inner: tuple[int, ...] = (len(rows[0]),)
        datatype = "BYTES"
        data = tensors.strings_to_bytes(value for row in rows for value in row)
    else:
        inner = tensor.shape if tensor.is_fixed else tensor.to_client(array.shape[1:])
        datatype = tensor.datatype
        data = tensors.raw_view(array)
    output = response.outputs.add(name=tensor.name, datatype=datatype)
    output.shape.extend((template.rows, *inner) if template.schema.has_batch else inner)
    if wanted.region is None:
        return data
    assert call.targets is not None  # noqa: S101 - for mypy: its outputs were located when it was checked
    call.targets[tensor.name].write(data, tensor.name)
    output.parameters["shared_memory_region"].string_param = wanted.region.region
    output.parameters["shared_memory_byte_size"].int64_param = len(data)
    if wanted.region.offset:
        output.parameters["shared_memory_offset"].int64_param = wanted.region.offset
    return b""

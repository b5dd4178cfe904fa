"""Completions of Open Inference calls to responses. Pure: no I/O, no state."""

from collections.abc import Callable

from forebay.wire import inference_pb2 as pb
from service.frontend import inference_tensors as tensors
from service.frontend.inference_codec import Call, WantedOutput
from service.request import Completion, OutputArrays

FINAL_RESPONSE = "triton_final_response"

WriteRegion = Callable[[WantedOutput, bytes], None]
"""Puts an output into shared memory. Raises InferenceError."""


def encode(call: Call, completion: Completion, write_region: WriteRegion) -> pb.ModelInferResponse:
    """Return the response to a call that was executed. Raises InferenceError from `write_region`."""
    response = pb.ModelInferResponse(model_name=call.face.name, model_version=call.face.version, id=call.request_id)
    outputs: OutputArrays = completion.outputs or ()
    for wanted in call.wanted:
        _add_output(response, wanted, outputs, call, write_region)
    return response


def _add_output(
    response: pb.ModelInferResponse,
    wanted: WantedOutput,
    outputs: OutputArrays,
    call: Call,
    write_region: WriteRegion,
) -> None:
    face, array = wanted.face, outputs[wanted.face.index]
    if wanted.classes:
        rows = [tensors.top_classes(row.reshape(-1), wanted.classes, call.face.labels) for row in array]
        inner: tuple[int, ...] = (len(rows[0]),)
        datatype = "BYTES"
        data = tensors.strings_to_bytes(value for row in rows for value in row)
    else:
        inner = face.shape if face.is_fixed else array.shape[1:]
        datatype = face.datatype
        data = tensors.array_to_bytes(array)
    output = response.outputs.add(name=face.name, datatype=datatype)
    output.shape.extend((call.rows, *inner) if call.face.has_batch else inner)
    if wanted.region is not None:
        write_region(wanted, data)
        output.parameters["shared_memory_region"].string_param = wanted.region.region
        output.parameters["shared_memory_byte_size"].int64_param = len(data)
        if wanted.region.offset:
            output.parameters["shared_memory_offset"].int64_param = wanted.region.offset
        data = b""
    response.raw_output_contents.append(data)

"""Every row of the status table: what is wrong with a request, the code, and the words that clients match on."""

import grpc
import numpy as np
import pytest

from forebay.wire import inference_pb2 as pb
from tests.support import models
from tests.support.inference import add_sub_request, array_of, request_of, stub_of
from tests.support.loops import on_loop
from tests.support.real_server import real_server, simulated

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED


def wrong(change=lambda request: None, **fields):
    request = add_sub_request(**{"request_id": "x7", **fields})
    change(request)
    return request


def without_input(request):
    del request.inputs[1:], request.raw_input_contents[1:]


def with_unknown_input(request):
    request.inputs[1].name = "INPUT9"


def with_duplicate_input(request):
    request.inputs[1].name = "INPUT0"


def with_datatype(request):
    request.inputs[0].datatype = "FP32"


def with_shape(*shape):
    def change(request):
        request.inputs[0].shape[:] = shape

    return change


def with_other_rows(request):
    request.inputs[1].shape[0] = 2
    request.raw_input_contents[1] *= 2


def with_short_data(request):
    request.raw_input_contents[0] = request.raw_input_contents[0][:-4]


def without_data(request):
    del request.raw_input_contents[:]


def with_one_raw(request):
    del request.raw_input_contents[1:]


def with_three_raws(request):
    request.raw_input_contents.append(b"")


def with_typed_and_raw(request):
    request.inputs[0].contents.int_contents.append(1)


def with_typed(field, values):
    def change(request):
        del request.raw_input_contents[:]
        for tensor in request.inputs:
            getattr(tensor.contents, field).extend(values)

    return change


def with_output(*names):
    def change(request):
        for name in names:
            request.outputs.add(name=name)

    return change


def with_parameter(key, **value):
    def change(request):
        request.parameters[key].CopyFrom(pb.InferParameter(**value))

    return change


def with_classification(**value):
    def change(request):
        request.outputs.add(name="OUTPUT0").parameters["classification"].CopyFrom(pb.InferParameter(**value))

    return change


def in_shared_memory(request):
    del request.raw_input_contents[0]
    request.inputs[0].parameters["shared_memory_region"].string_param = "r"
    request.inputs[0].parameters["shared_memory_byte_size"].int64_param = 64


TABLE = [
    (wrong(model="nobody"), NOT_FOUND, "Request for unknown model: 'nobody' is not found"),
    (wrong(version="7"), NOT_FOUND, "Request for unknown model: 'simple' version 7 is not found"),
    (wrong(version="new"), INVALID, "failed to get model version from specified version string 'new'"),
    (wrong(version="0"), INVALID, "version should be an integral value > 0"),
    (wrong(version="9" * 30), INVALID, "version should be an integral value > 0"),
    (
        wrong(without_input),
        INVALID,
        "expected 2 inputs but got 1 inputs for model 'simple'. Got input(s) ['INPUT0'], but missing required input(s) "
        "['INPUT1']. Please provide all required input(s).",
    ),
    (wrong(with_unknown_input), INVALID, "unexpected inference input 'INPUT9' for model 'simple'"),
    (wrong(with_duplicate_input), INVALID, "input 'INPUT0' already exists in request"),
    (
        wrong(with_datatype),
        INVALID,
        "inference input 'INPUT0' data-type is 'FP32', but model 'simple' expects 'INT32'",
    ),
    (
        wrong(with_shape(1, 15)),
        INVALID,
        "unexpected shape for input 'INPUT0' for model 'simple'. Expected [-1,16], got [1,15]. NOTE: Setting a "
        "non-zero max_batch_size in the model config requires a batch dimension to be prepended to each input shape.",
    ),
    (wrong(with_shape(1, -16)), INVALID, "unexpected shape for input 'INPUT0'"),
    (wrong(with_shape(1, 16, 2**62, 2**62)), INVALID, "unexpected shape for input 'INPUT0'"),
    (wrong(with_shape()), INVALID, "input 'INPUT0' has no shape but model requires batch dimension for 'simple'"),
    (wrong(with_other_rows), INVALID, "input 'INPUT1' batch size does not match other inputs for 'simple'"),
    (wrong(rows=9), INVALID, "inference request batch-size must be <= 8 for 'simple'"),
    (wrong(rows=0), INVALID, "inference request batch-size must be >= 1 for 'simple'"),
    (
        wrong(with_short_data),
        INVALID,
        "input byte size mismatch for input 'INPUT0' for model 'simple'. Expected 64, got 60",
    ),
    (wrong(without_data), INVALID, "unable to find data for input tensor 'INPUT0' for model 'simple' in request."),
    (wrong(with_one_raw), INVALID, "unable to find data for input tensor 'INPUT1' for model 'simple' in request."),
    (wrong(with_three_raws), INVALID, "unexpected explicit tensor data for input tensor 'INPUT1' for model 'simple'"),
    (
        wrong(with_typed_and_raw),
        INVALID,
        "contents field must not be specified when using raw_input_contents for 'INPUT0' for model 'simple'",
    ),
    (
        wrong(with_typed("fp32_contents", [1.0] * 16)),
        INVALID,
        "unexpected explicit tensor data for input tensor 'INPUT0' for model 'simple'",
    ),
    (
        wrong(with_typed("int_contents", [1] * 15)),
        INVALID,
        "unexpected explicit tensor data for input tensor 'INPUT0' for model 'simple'",
    ),
    (wrong(with_output("OUTPUT9")), INVALID, "unexpected inference output 'OUTPUT9' for model 'simple'"),
    (wrong(with_output("OUTPUT0", "OUTPUT0")), INVALID, "output 'OUTPUT0' already exists in request"),
    (
        wrong(with_parameter("priority", string_param="high")),
        INVALID,
        "invalid value type for 'priority' parameter, expected int64_param or uint64_param.",
    ),
    (
        wrong(with_parameter("timeout", string_param="1")),
        INVALID,
        "invalid value type for 'timeout' parameter, expected int64_param.",
    ),
    (
        wrong(with_parameter("sequence_start", int64_param=1)),
        INVALID,
        "invalid value type for 'sequence_start' parameter, expected bool_param.",
    ),
    (
        wrong(with_parameter("triton_mine", int64_param=1)),
        INVALID,
        "parameter keys starting with 'triton_' are reserved for Triton usage. Only the following keys starting with "
        "'triton_' are allowed: triton_enable_empty_final_response",
    ),
    (wrong(with_parameter("timeout", int64_param=-1)), INVALID, "parameter 'timeout' is -1"),
    (wrong(with_parameter("latency_budget_ms", double_param=float("nan"))), INVALID, "'latency_budget_ms' is nan"),
    (wrong(with_parameter("delivery", string_param="some")), INVALID, "parameter 'delivery' is 'some'"),
    (
        wrong(with_classification(string_param="3")),
        INVALID,
        "invalid value type for 'classification' parameter, expected int64_param.",
    ),
    (wrong(with_classification(int64_param=0)), INVALID, "parameter 'classification' of output 'OUTPUT0' is 0"),
    (wrong(with_parameter("timeout", int64_param=1)), UNAVAILABLE, "Request timeout expired"),
    (
        wrong(with_parameter("latency_budget_ms", double_param=0.0)),
        grpc.StatusCode.DEADLINE_EXCEEDED,
        "the deadline is nearer than the least that one request takes",
    ),
    (wrong(in_shared_memory), UNIMPLEMENTED, "Client shared memory is disabled."),
]
UNPREFIXED = ("Request for unknown model", "failed to get model version", "Request timeout", "Client shared memory")


@on_loop
async def test_every_row_of_the_table_has_its_code_and_its_words_and_the_model_serves_on(tmp_path):
    models.save(models.add_sub(), tmp_path / "simple" / "1" / "model.onnx")
    async with real_server(tmp_path) as running:
        stub = stub_of(running)
        for request, code, words in TABLE:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ModelInfer(request)
            assert (caught.value.code(), words in caught.value.details()) == (code, True), caught.value.details()
            has_prefix = not words.startswith(UNPREFIXED) and "version should be" not in words
            assert caught.value.details().startswith("[request id: x7] ") is has_prefix, caught.value.details()
        assert array_of(await stub.ModelInfer(add_sub_request()), "OUTPUT0")[0, 3] == 4


@on_loop
async def test_in_a_stream_every_row_is_a_message_with_the_id_and_the_stream_goes_on(tmp_path):
    models.save(models.add_sub(), tmp_path / "simple" / "1" / "model.onnx")
    async with real_server(tmp_path) as running:
        call = stub_of(running).ModelStreamInfer()
        for request, _, words in TABLE:
            await call.write(request)
            response = await call.read()
            assert words in response.error_message
            assert response.error_message.startswith("[request id: x7] ")
            assert response.infer_response.id == "x7"
            assert not response.infer_response.outputs
        await call.write(add_sub_request())
        response = await call.read()
        assert response.infer_response.parameters["triton_final_response"].bool_param
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK


@on_loop
async def test_bytes_that_are_no_request_are_refused(tmp_path):
    models.save(models.add_sub(), tmp_path / "simple" / "1" / "model.onnx")
    async with real_server(tmp_path) as running:
        infer = running.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await infer(b"\xff\xff\xff")
        assert caught.value.code() is INVALID


@on_loop
async def test_typed_contents_of_every_datatype_are_taken(tmp_path):
    for datatype in ("BOOL", "INT8", "INT16", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP32", "FP64"):
        simulated(tmp_path, datatype, input_shape=2, datatype=datatype)
    async with real_server(tmp_path) as running:
        stub = stub_of(running)
        for name, field, values, dtype in (
            ("BOOL", "bool_contents", [True, False], "?"),
            ("INT8", "int_contents", [-128, 127], "i1"),
            ("INT16", "int_contents", [-1, 2], "<i2"),
            ("INT64", "int64_contents", [-(2**63), 5], "<i8"),
            ("UINT8", "uint_contents", [0, 255], "u1"),
            ("UINT16", "uint_contents", [0, 65535], "<u2"),
            ("UINT32", "uint_contents", [0, 2**32 - 1], "<u4"),
            ("UINT64", "uint64_contents", [0, 2**64 - 1], "<u8"),
            ("FP32", "fp32_contents", [0.5, -2.0], "<f4"),
            ("FP64", "fp64_contents", [0.1, -2.0], "<f8"),
        ):
            request = pb.ModelInferRequest(model_name=name)
            tensor = request.inputs.add(name="input", datatype=name, shape=[1, 2])
            getattr(tensor.contents, field).extend(values)
            response = await stub.ModelInfer(request)
            assert np.frombuffer(response.raw_output_contents[0], dtype).tolist() == values


@on_loop
async def test_a_number_that_does_not_fit_is_refused(tmp_path):
    simulated(tmp_path, "small", input_shape=2, datatype="INT8")
    async with real_server(tmp_path) as running:
        request = pb.ModelInferRequest(model_name="small")
        tensor = request.inputs.add(name="input", datatype="INT8", shape=[1, 2])
        tensor.contents.int_contents.extend([1, 300])
        with pytest.raises(grpc.aio.AioRpcError, match="does not fit INT8") as caught:
            await stub_of(running).ModelInfer(request)
        assert caught.value.code() is INVALID


@on_loop
async def test_requests_with_shared_permits_used_up_are_unavailable(tmp_path):
    simulated(tmp_path, alpha_ms=50, max_batch_size=1)
    async with real_server(tmp_path, permits=1) as running:
        stub = stub_of(running)
        request = request_of("sim", input=np.zeros((1, 64), np.uint8))
        calls = [stub.ModelInfer(request) for _ in range(12)]
        codes = [await call.code() for call in calls]
        assert set(codes) == {grpc.StatusCode.OK, UNAVAILABLE}

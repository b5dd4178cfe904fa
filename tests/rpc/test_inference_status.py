"""Every row of the status table: the fault, the code, and the message that clients match.

`TABLE` has the rows that a single request can show; `ELSEWHERE` names the tests of the other rows. The table in
docs/triton.md has the same cases and codes.
"""

import re

import grpc
import numpy as np
import pytest

from forebay.wire import inference_pb2 as pb
from tests.rpc import test_inference_datatypes as datatypes
from tests.rpc import test_inference_lifecycle as lifecycle
from tests.rpc import test_inference_memory as memory
from tests.rpc import test_inference_settings as settings
from tests.rpc import test_inference_situations as situations
from tests.rpc import test_inference_statistics as statistics
from tests.rpc import test_restrictions as restrictions
from tests.support import models
from tests.support.inference import add_sub_request, array_of, request_of, stub_of
from tests.support.loops import on_loop
from tests.support.real_server import real_server, simulated
from tests.support.repository import ROOT

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
    ("model never known", wrong(model="nobody"), NOT_FOUND, "Request for unknown model: 'nobody' is not found"),
    ("unknown version", wrong(version="7"), NOT_FOUND, "Request for unknown model: 'simple' version 7 is not found"),
    (
        "bad version string",
        wrong(version="new"),
        INVALID,
        "failed to get model version from specified version string 'new'",
    ),
    ("bad version string", wrong(version="0"), INVALID, "version should be an integral value > 0"),
    ("bad version string", wrong(version="9" * 30), INVALID, "version should be an integral value > 0"),
    (
        "wrong number of inputs",
        wrong(without_input),
        INVALID,
        "expected 2 inputs but got 1 inputs for model 'simple'. Got input(s) ['INPUT0'], but missing required input(s) "
        "['INPUT1']. Please provide all required input(s).",
    ),
    (
        "unknown input / output",
        wrong(with_unknown_input),
        INVALID,
        "unexpected inference input 'INPUT9' for model 'simple'",
    ),
    ("repeated input", wrong(with_duplicate_input), INVALID, "input 'INPUT0' already exists in request"),
    (
        "datatype",
        wrong(with_datatype),
        INVALID,
        "inference input 'INPUT0' data-type is 'FP32', but model 'simple' expects 'INT32'",
    ),
    (
        "shape",
        wrong(with_shape(1, 15)),
        INVALID,
        "unexpected shape for input 'INPUT0' for model 'simple'. Expected [-1,16], got [1,15]. NOTE: Setting a "
        "non-zero max_batch_size in the model config requires a batch dimension to be prepended to each input shape.",
    ),
    ("shape", wrong(with_shape(1, -16)), INVALID, "unexpected shape for input 'INPUT0'"),
    ("shape", wrong(with_shape(1, 16, 2**62, 2**62)), INVALID, "unexpected shape for input 'INPUT0'"),
    (
        "no batch dim",
        wrong(with_shape()),
        INVALID,
        "input 'INPUT0' has no shape but model requires batch dimension for 'simple'",
    ),
    (
        "batch differs",
        wrong(with_other_rows),
        INVALID,
        "input 'INPUT1' batch size does not match other inputs for 'simple'",
    ),
    ("batch too big", wrong(rows=9), INVALID, "inference request batch-size must be <= 8 for 'simple'"),
    ("no rows", wrong(rows=0), INVALID, "inference request batch-size must be >= 1 for 'simple'"),
    (
        "byte size",
        wrong(with_short_data),
        INVALID,
        "input byte size mismatch for input 'INPUT0' for model 'simple'. Expected 64, got 60",
    ),
    (
        "no data",
        wrong(without_data),
        INVALID,
        "unable to find data for input tensor 'INPUT0' for model 'simple' in request.",
    ),
    (
        "no data",
        wrong(with_one_raw),
        INVALID,
        "unable to find data for input tensor 'INPUT1' for model 'simple' in request.",
    ),
    (
        "raw count too large / typed mismatch",
        wrong(with_three_raws),
        INVALID,
        "unexpected explicit tensor data for input tensor 'INPUT1' for model 'simple'",
    ),
    (
        "raw + typed",
        wrong(with_typed_and_raw),
        INVALID,
        "contents field must not be specified when using raw_input_contents for 'INPUT0' for model 'simple'",
    ),
    (
        "raw count too large / typed mismatch",
        wrong(with_typed("fp32_contents", [1.0] * 16)),
        INVALID,
        "unexpected explicit tensor data for input tensor 'INPUT0' for model 'simple'",
    ),
    (
        "raw count too large / typed mismatch",
        wrong(with_typed("int_contents", [1] * 15)),
        INVALID,
        "unexpected explicit tensor data for input tensor 'INPUT0' for model 'simple'",
    ),
    (
        "unknown input / output",
        wrong(with_output("OUTPUT9")),
        INVALID,
        "unexpected inference output 'OUTPUT9' for model 'simple'",
    ),
    (
        "duplicate output",
        wrong(with_output("OUTPUT0", "OUTPUT0")),
        INVALID,
        "output 'OUTPUT0' already exists in request",
    ),
    (
        "wrong parameter type",
        wrong(with_parameter("priority", string_param="high")),
        INVALID,
        "invalid value type for 'priority' parameter, expected int64_param or uint64_param.",
    ),
    (
        "wrong parameter type",
        wrong(with_parameter("timeout", string_param="1")),
        INVALID,
        "invalid value type for 'timeout' parameter, expected int64_param.",
    ),
    (
        "wrong parameter type",
        wrong(with_parameter("sequence_start", int64_param=1)),
        INVALID,
        "invalid value type for 'sequence_start' parameter, expected bool_param.",
    ),
    (
        "reserved parameter",
        wrong(with_parameter("triton_mine", int64_param=1)),
        INVALID,
        "parameter keys starting with 'triton_' are reserved for Triton usage. Only the following keys starting with "
        "'triton_' are allowed: triton_enable_empty_final_response",
    ),
    ("value out of range", wrong(with_parameter("timeout", int64_param=-1)), INVALID, "parameter 'timeout' is -1"),
    (
        "value out of range",
        wrong(with_parameter("latency_budget_ms", double_param=float("nan"))),
        INVALID,
        "'latency_budget_ms' is nan",
    ),
    (
        "value out of range",
        wrong(with_parameter("delivery", string_param="some")),
        INVALID,
        "parameter 'delivery' is 'some'",
    ),
    (
        "wrong parameter type",
        wrong(with_classification(string_param="3")),
        INVALID,
        "invalid value type for 'classification' parameter, expected int64_param.",
    ),
    (
        "value out of range",
        wrong(with_classification(int64_param=0)),
        INVALID,
        "parameter 'classification' of output 'OUTPUT0' is 0",
    ),
    ("empty name", wrong(model=""), NOT_FOUND, "Request for unknown model: '' is not found"),
    ("queue timeout", wrong(with_parameter("timeout", int64_param=1)), UNAVAILABLE, "Request timeout expired"),
    (
        "budget",
        wrong(with_parameter("latency_budget_ms", double_param=0.0)),
        grpc.StatusCode.DEADLINE_EXCEEDED,
        "the deadline is nearer than the least that one request takes",
    ),
    ("shm disabled", wrong(in_shared_memory), UNIMPLEMENTED, "Client shared memory is disabled."),
]
UNPREFIXED = ("Request for unknown model", "failed to get model version", "Request timeout", "Client shared memory")


@on_loop
async def test_every_row_of_the_table_has_its_code_and_its_words_and_the_model_serves_on(tmp_path):
    models.save(models.add_sub(), tmp_path / "simple" / "1" / "model.onnx")
    async with real_server(tmp_path) as running:
        stub = stub_of(running)
        for case, request, code, words in TABLE:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ModelInfer(request)
            assert (caught.value.code(), words in caught.value.details()) == (code, True), (
                case,
                caught.value.details(),
            )
            has_prefix = not words.startswith(UNPREFIXED) and "version should be" not in words
            assert caught.value.details().startswith("[request id: x7] ") is has_prefix, caught.value.details()
        assert array_of(await stub.ModelInfer(add_sub_request()), "OUTPUT0")[0, 3] == 4


@on_loop
async def test_in_a_stream_every_row_is_a_message_with_the_id_and_the_stream_goes_on(tmp_path):
    models.save(models.add_sub(), tmp_path / "simple" / "1" / "model.onnx")
    async with real_server(tmp_path) as running:
        call = stub_of(running).ModelStreamInfer()
        for case, request, _, words in TABLE:
            await call.write(request)
            response = await call.read()
            assert words in response.error_message, case
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
async def test_requests_with_shared_permits_used_up_are_unavailable(tmp_path):
    simulated(tmp_path, alpha_ms=50, max_batch_size=1)
    async with real_server(tmp_path, permits=1) as running:
        stub = stub_of(running)
        request = request_of("sim", input=np.zeros((1, 64), np.uint8))
        calls = [stub.ModelInfer(request) for _ in range(12)]
        codes = [await call.code() for call in calls]
        assert set(codes) == {grpc.StatusCode.OK, UNAVAILABLE}


ELSEWHERE = {
    "no version loaded": (NOT_FOUND, situations.test_a_model_that_was_unloaded_has_no_versions),
    "not ready": (UNAVAILABLE, situations.test_a_model_that_was_unloaded_has_no_versions),
    "decoupled model by unary": (UNIMPLEMENTED, situations.test_a_decoupled_model_is_refused_when_it_is_loaded),
    "queue full": (UNAVAILABLE, situations.test_a_full_queue_refuses_the_newest),
    "cancelled": (grpc.StatusCode.CANCELLED, situations.test_a_request_that_is_cancelled_ends_cancelled),
    "restricted": (UNAVAILABLE, restrictions.test_a_restricted_call_needs_its_header),
    "shutting down": (UNAVAILABLE, situations.test_while_it_drains_open_streams_are_answered_and_new_calls_refused),
    "draining model": (
        grpc.StatusCode.OK,
        situations.test_while_it_drains_open_streams_are_answered_and_new_calls_refused,
    ),
    "load/unload not explicit": (UNAVAILABLE, lifecycle.test_without_explicit_control_nothing_is_loaded_or_unloaded),
    "repository_name given": (UNIMPLEMENTED, lifecycle.test_what_load_cannot_do_it_says),
    "bad load parameter": (INVALID, lifecycle.test_what_load_cannot_do_it_says),
    "shm unknown": (NOT_FOUND, memory.test_a_region_that_was_never_registered_or_is_no_more_is_not_found),
    "shm from another machine": (grpc.StatusCode.PERMISSION_DENIED, memory.test_a_client_of_another_machine_is_refused),
    "shm: a region too many": (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        memory.test_one_region_too_many_is_refused_and_all_others_stay,
    ),
    "shm twice": (grpc.StatusCode.ALREADY_EXISTS, memory.test_what_cannot_be_registered),
    "shm offset / size": (INVALID, memory.test_ranges_outside_a_region_are_refused),
    "shm larger than its object, or empty": (INVALID, memory.test_what_cannot_be_registered),
    "shm reserved key": (INVALID, memory.test_what_cannot_be_registered),
    "shm cannot open": (grpc.StatusCode.INTERNAL, memory.test_what_cannot_be_registered),
    "output region too small": (grpc.StatusCode.INTERNAL, memory.test_ranges_outside_a_region_are_refused),
    "trace_file / log_format at run time": (
        UNIMPLEMENTED,
        settings.test_settings_of_traces_can_be_read_and_not_changed,
    ),
    "log_file at run time": (
        UNIMPLEMENTED,
        settings.test_the_log_level_can_be_read_and_changed_and_where_it_goes_cannot,
    ),
    "classes of BYTES": (INVALID, datatypes.test_classes_are_of_numbers_only),
    "classes of too much": (INVALID, datatypes.test_classes_of_more_than_a_million_elements_are_refused),
    "statistics of a missing version": (INVALID, statistics.test_statistics_of_all_models_of_one_and_of_none),
    "statistics without a version loaded": (INVALID, situations.test_a_model_that_was_unloaded_has_no_versions),
    "load of a missing model": (grpc.StatusCode.INTERNAL, lifecycle.test_what_load_cannot_do_it_says),
    "load that fails": (
        grpc.StatusCode.INTERNAL,
        lifecycle.test_a_broken_model_is_refused_and_the_old_one_keeps_serving,
    ),
    "permits used up": (UNAVAILABLE, test_requests_with_shared_permits_used_up_are_unavailable),
    "execution failed": (grpc.StatusCode.INTERNAL, statistics.test_failures_are_counted_by_reason),
}
ROW = re.compile(r"^\| (?P<case>[^|]+) \| (?P<code>OK|[A-Z]+(?:_[A-Z]+)*) \|", re.MULTILINE)


def test_the_table_in_the_docs_has_every_case_with_its_code():
    page = (ROOT / "docs" / "triton.md").read_text()
    told = {match["case"]: match["code"] for match in ROW.finditer(page)}
    tested = {case: code.name for case, _, code, _ in TABLE} | {
        case: code.name for case, (code, _) in ELSEWHERE.items()
    }
    assert told == tested

"""A completion becomes one Result: its status, its outputs, and where its time went."""

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.wire import frames_pb2 as pb
from forebay_server.service.errors import (
    MAX_MESSAGE_CHARACTERS,
    BatchFailedError,
    InvalidRequestError,
    InvariantError,
    Outcome,
    OverloadedError,
)
from forebay_server.service.frontend.frames.codec import (
    FRAME_STATUS,
    STREAM_STATUS,
    encode_refusal,
    encode_result,
    status_of,
    tensor_spec,
)
from forebay_server.service.request import Completion, Timeline
from forebay_server.service.results.classes import Classification
from forebay_server.service.results.detection import Box, Detection
from tests.support.front_end import specs_of
from tests.support.requests import frame_request

STAGES = ("receive_us", "decode_us", "queue_us", "h2d_us", "execute_us", "d2h_us", "deliver_us")
START_NS = 1_000_000_000
SPANS = st.integers(0, 10**12)


def completion_of(timeline=None, *, deadline_ns=None, **fields):
    timeline = timeline or Timeline(received_ns=START_NS, built_ns=START_NS)
    request = frame_request(1, None, arrival_ns=START_NS, deadline_ns=deadline_ns, timeline=timeline)
    return Completion(request, **fields)


def encoded(completion, specs=None, tensor_indices=()):
    data = encode_result(7, -8, completion, specs or specs_of(), tensor_indices)
    message = pb.ServerMessage.FromString(data)
    assert message.WhichOneof("message") == "result"
    return message.result


@given(st.lists(SPANS, min_size=5, max_size=5), st.lists(SPANS, min_size=3, max_size=3))
def test_stage_timings_add_up_to_the_total(spans, device_spans):
    instants = [START_NS + sum(spans[:i]) for i in range(6)]
    received, validated, admitted, formed, readable, built = instants
    timeline = Timeline(received, validated, admitted, formed, readable, built, *device_spans)
    timings = encoded(completion_of(timeline)).timings
    assert sum(getattr(timings, stage) for stage in STAGES) == timings.server_total_us
    assert timings.server_total_us == min(2**32 - 1, built // 1000 - received // 1000)


@given(SPANS, SPANS)
def test_the_timings_of_a_refused_frame_add_up_too(until_decided, until_built):
    decided = START_NS + until_decided
    timeline = Timeline(received_ns=START_NS, readable_ns=decided, built_ns=decided + until_built)
    result = pb.ServerMessage.FromString(encode_refusal(7, -8, InvalidRequestError("no"), timeline)).result
    assert (result.seq, result.capture_time_us, result.batch_size) == (7, -8, 0)
    assert sum(getattr(result.timings, stage) for stage in STAGES) == result.timings.server_total_us


def test_a_day_of_waiting_still_fits_its_message():
    day = Timeline(received_ns=START_NS, built_ns=START_NS + 86_400 * 10**9)
    for result in (
        encoded(completion_of(day)),
        pb.ServerMessage.FromString(encode_refusal(1, 0, InvalidRequestError("no"), day)).result,
    ):
        assert result.timings.server_total_us == 2**32 - 1


@pytest.mark.parametrize(
    ("late_ns", "late_by_us"), [(-1, 0), (0, 0), (1, 1), (999, 1), (1000, 1), (1001, 2), (5_000_000, 5000)]
)
def test_a_late_result_says_by_how_much_rounded_up(late_ns, late_by_us):
    timeline = Timeline(received_ns=START_NS, built_ns=START_NS + 10**9)
    result = encoded(completion_of(timeline, deadline_ns=timeline.built_ns - late_ns))
    assert result.late_by_us == late_by_us
    assert result.status.code == pb.STATUS_OK


def test_a_result_without_a_deadline_is_never_late():
    assert encoded(completion_of(Timeline(received_ns=1, built_ns=10**15))).late_by_us == 0


def test_an_error_carries_its_status_and_no_outputs():
    outputs = (np.zeros((1, 4, 4, 3), np.uint8),)
    error = OverloadedError("too many", retry_after_ms=2**40)
    result = encoded(completion_of(error=error, outputs=outputs, model_version="3"), tensor_indices=(0,))
    assert result.status == pb.Status(code=pb.STATUS_OVERLOADED, message="too many", retry_after_ms=2**32 - 1)
    assert not result.tensors
    assert result.model_version == ""


def test_tensors_come_in_the_order_asked_for_without_the_batch_dimension():
    specs = specs_of(output_shapes=((2,), (3,)), dtype=np.dtype(np.float32))
    outputs = (np.arange(2, dtype=np.float32)[None], np.arange(3, dtype=np.float32)[None])
    result = encoded(completion_of(outputs=outputs, batch_size=4, model_version="2"), specs, (1, 0))
    assert [(t.name, t.datatype, tuple(t.shape)) for t in result.tensors] == [
        ("y1", "FP32", (3,)),
        ("y0", "FP32", (2,)),
    ]
    assert np.frombuffer(result.tensors[0].data, "<f4").tolist() == [0, 1, 2]
    assert (result.batch_size, result.model_version) == (4, "2")


def test_an_output_that_is_no_contiguous_row_is_sent_dense():
    specs = specs_of(output_shapes=((2, 3),))
    outputs = (np.arange(6, dtype=np.uint8).reshape(3, 2).T[None],)
    result = encoded(completion_of(outputs=outputs), specs, (0,))
    assert list(result.tensors[0].data) == [0, 2, 4, 1, 3, 5]


def test_typed_results_keep_their_order():
    found = tuple(
        Detection(f"label{i}", i, 0.5, Box(0.0, 0.25, 0.5, 1.0), Box(0.0, 50.0, 100.0, 200.0)) for i in range(3)
    )
    result = encoded(completion_of(result=found))
    assert [d.class_id for d in result.detections] == [0, 1, 2]
    assert result.detections[0].box == pb.Box(x_min=0, y_min=0.25, x_max=0.5, y_max=1)
    assert result.detections[0].box_pixels.y_max == 200
    classes = encoded(completion_of(result=(Classification("cat", 3, 11.5),))).classes
    assert [(c.label, c.class_id, c.score) for c in classes] == [("cat", 3, 11.5)]


def test_every_outcome_is_in_both_tables_and_none_is_unknown():
    assert set(FRAME_STATUS) == set(STREAM_STATUS) == set(Outcome)
    assert pb.STATUS_UNSPECIFIED not in FRAME_STATUS.values()
    assert grpc.StatusCode.UNKNOWN not in STREAM_STATUS.values()
    is_ok = {outcome for outcome, code in FRAME_STATUS.items() if code == pb.STATUS_OK}
    assert is_ok == {Outcome.OK} == {o for o, code in STREAM_STATUS.items() if code is grpc.StatusCode.OK}


def test_our_own_bug_is_masked():
    status = status_of(InvariantError("slot 3 of /models/secret: free -> ready"))
    assert "secret" not in status.message
    assert "internal error" in status.message


def test_a_status_fits_into_http2_headers():
    status = status_of(BatchFailedError("ü" * 10**6))
    assert len(status.message) == MAX_MESSAGE_CHARACTERS
    assert 3 * len(status.message.encode()) < 8192  # percent-encoded


@pytest.mark.parametrize(("dtype", "name"), [("float16", "FP16"), ("int64", "INT64"), ("bool", "BOOL")])
def test_a_tensor_is_described_by_its_protocol_name(dtype, name):
    spec = specs_of(output_shapes=((-1, 4),), dtype=np.dtype(dtype)).outputs[0]
    assert tensor_spec(spec) == pb.TensorSpec(name="y0", datatype=name, shape=(-1, 4))

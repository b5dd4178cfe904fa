"""Requests are taken apart, and responses put together, as protobuf does it."""

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from forebay.wire import inference_pb2 as pb
from forebay_server.service.errors import InvalidRequestError
from forebay_server.service.frontend.open_inference.tensors import raw_view
from forebay_server.service.frontend.open_inference.wire import parse, response_bytes, varint

TEXT = st.text(max_size=200)


@st.composite
def requests(draw):
    request = pb.ModelInferRequest(model_name=draw(TEXT), model_version=draw(TEXT), id=draw(TEXT))
    for name in draw(st.lists(TEXT, max_size=3)):
        tensor = request.inputs.add(
            name=name, datatype="FP32", shape=draw(st.lists(st.integers(-1, 2**40), max_size=3))
        )
        tensor.parameters["p"].int64_param = 1
        request.outputs.add(name=name)
    request.parameters["timeout"].int64_param = draw(st.integers(0, 2**60))
    request.raw_input_contents.extend(draw(st.lists(st.binary(max_size=300), max_size=3)))
    return request


def taken_apart(data):
    """Head, id and raws of a request as our own walk sees them, put together as one message again."""
    message = parse(data)
    whole = pb.ModelInferRequest()
    whole.CopyFrom(message.request)
    assert message.request_id == whole.id
    assert not whole.raw_input_contents
    whole.raw_input_contents.extend(bytes(raw) for raw in message.raws)
    return whole


@given(requests())
def test_a_request_is_what_protobuf_says(request):
    assert taken_apart(request.SerializeToString()) == request


@given(requests(), st.data())
def test_fields_in_any_order_are_what_protobuf_says(request, data):
    """Two serialised messages after each other are one message: so fields come twice, and data before names."""
    twice = request.SerializeToString() + request.SerializeToString()
    assert taken_apart(twice) == pb.ModelInferRequest.FromString(twice)


@given(st.one_of(st.binary(max_size=100), requests().map(lambda request: request.SerializeToString())), st.data())
def test_bytes_are_what_protobuf_says_or_refused(data, draw):
    data = bytearray(data)
    for _ in range(draw.draw(st.integers(0, 3))):
        if data:
            data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    data = bytes(data[: draw.draw(st.integers(0, len(data)))])
    try:
        expected = pb.ModelInferRequest.FromString(data)
    except DecodeError:
        with pytest.raises(InvalidRequestError):
            taken_apart(data)
        return
    assert taken_apart(data) == expected


@given(requests(), TEXT, st.binary(max_size=50))
def test_requests_that_differ_in_id_and_data_only_have_one_key(request, other_id, other_data):
    key = parse(request.SerializeToString()).key
    request.id = other_id
    request.raw_input_contents.append(other_data)
    assert parse(request.SerializeToString()).key == key
    request.model_name += "x"
    assert parse(request.SerializeToString()).key != key


def test_long_heads_have_no_key():
    request = pb.ModelInferRequest(model_name="m")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 5000]).contents.fp32_contents.extend([1.0] * 5000)
    assert parse(request.SerializeToString()).key is None


def test_the_data_are_views_of_what_was_received():
    data = pb.ModelInferRequest(raw_input_contents=[b"abc" * 100]).SerializeToString()
    (raw,) = parse(data).raws
    assert raw.obj is data


@given(TEXT, st.lists(st.binary(max_size=300), max_size=3), st.booleans())
def test_a_response_is_what_protobuf_says(request_id, raws, in_stream):
    head = pb.ModelInferResponse(model_name="m", outputs=[pb.ModelInferResponse.InferOutputTensor(name="y", shape=[1])])
    data = response_bytes(head.SerializeToString(), request_id, map(memoryview, raws), in_stream=in_stream)
    head.id = request_id
    head.raw_output_contents.extend(raws)
    if in_stream:
        assert pb.ModelStreamInferResponse.FromString(data) == pb.ModelStreamInferResponse(infer_response=head)
    else:
        assert pb.ModelInferResponse.FromString(data) == head


@given(st.integers(0, 2**63))
def test_numbers_are_written_as_protobuf_writes_them(number):
    assert varint(number) == pb.ModelStatistics(inference_count=number).SerializeToString()[1:] or number == 0


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.arange(6, dtype=np.float16).reshape(2, 3).T,
        np.array([[True, False]]),
        np.zeros((0, 4)),
        np.array(7, np.int64),
    ],
)
def test_the_raw_bytes_of_an_output_are_dense(array):
    assert bytes(raw_view(array)) == array.tobytes()


@pytest.mark.parametrize("field", [b"\x3a\x00", b"\x2a\x00"], ids=["raw contents", "inputs"])
def test_millions_of_empty_fields_are_refused_before_they_cost_anything(field):
    with pytest.raises(InvalidRequestError, match="more than 1024"):
        parse(field * 1_000_000)

"""Protobuf gets only messages that are short or have few fields."""

from contextlib import nullcontext as does_not_raise

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from forebay.wire import inference_pb2 as pb
from forebay_server.service.frontend.messages import MAX_FIELDS, MAX_PARSED_BYTES, MessageError, is_mostly_bytes, parse

LOAD = pb.RepositoryModelLoadRequest
MANY = MAX_PARSED_BYTES
LONG = {
    "numbers": b"\x20\x01" * MANY,
    "texts": b"\x0a\x00" * MANY,
    "map entries": b"\x1a\x00" * MANY,
    "fields of an entry": b"\x1a\x80\x80\x08" + b"\x0a\x00" * MANY,
    "fields of an entry's value": b"\x1a\x84\x80\x08\x12\x80\x80\x08" + b"\x08\x01" * MANY,
    "groups": b"\x23\x24" * MANY,
    "a name": b"\x0a\x80\x80\x08" + b"n" * 2 * MANY,
    "an unknown text": b"\xa2\x06\x80\x80\x08" + b"n" * 2 * MANY,
    "a text of an entry": b"\x1a\x84\x80\x08\x0a\x80\x80\x08" + b"k" * 2 * MANY,
    "no tags": b"\xff" * MANY * 2,
}


@pytest.mark.parametrize("data", LONG.values(), ids=LONG)
def test_a_long_message_of_many_fields_is_not_parsed(data):
    assert not is_mostly_bytes(data, LOAD)
    with pytest.raises(MessageError, match=f"not counting what is of type bytes, in {MAX_FIELDS} fields"):
        parse(LOAD, data, may_be_long=True)


@pytest.mark.parametrize("data", LONG.values(), ids=LONG)
def test_a_message_that_is_never_long_is_refused_by_its_length(data):
    with pytest.raises(MessageError, match=f"has {len(data)} bytes; a RepositoryModelLoadRequest may have"):
        parse(LOAD, data)


def test_a_long_message_of_few_fields_is_parsed():
    request = LOAD(model_name="m")
    request.parameters["file:1/model.onnx"].bytes_param = bytes(MAX_PARSED_BYTES)
    assert parse(LOAD, request.SerializeToString(), may_be_long=True) == request


def test_what_is_beside_the_bytes_of_a_long_message_is_limited():
    request = LOAD(model_name="m" * 1000)
    request.parameters["file:1/model.onnx"].bytes_param = bytes(MAX_PARSED_BYTES)
    request.parameters["config"].string_param = "c" * (MAX_PARSED_BYTES - 2000)
    assert is_mostly_bytes(request.SerializeToString(), LOAD)
    request.parameters["config"].string_param += "c" * 1000
    assert not is_mostly_bytes(request.SerializeToString(), LOAD)


@pytest.mark.parametrize("size", [0, 1, MAX_PARSED_BYTES, MAX_PARSED_BYTES + 1])
def test_what_is_no_message_is_said_to_be_none(size):
    with pytest.raises(MessageError, match="RepositoryModelLoadRequest") if size else does_not_raise():
        parse(LOAD, b"\xff" * size, may_be_long=True)


def test_a_long_message_that_is_cut_off_is_refused():
    with pytest.raises(MessageError):
        parse(LOAD, b"\x0a\xff\xff\x7f" + bytes(MAX_PARSED_BYTES), may_be_long=True)


@given(st.binary(max_size=200))
def test_any_bytes_are_counted_without_an_error_and_never_refused_if_protobuf_takes_them_without_groups(data):
    is_counted = is_mostly_bytes(data, LOAD)
    try:
        LOAD.FromString(data)
    except DecodeError:
        return
    assert is_counted or any(byte & 7 == 3 for byte in data)

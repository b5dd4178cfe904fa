"""Protobuf is given what is short or has few fields, and nothing else."""

from contextlib import nullcontext as does_not_raise

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from forebay.wire import inference_pb2 as pb
from service.frontend.messages import MAX_FIELDS, MAX_PARSED_BYTES, MessageError, has_few_fields, parse

LOAD = pb.RepositoryModelLoadRequest
MANY = MAX_PARSED_BYTES
LONG = {
    "numbers": b"\x20\x01" * MANY,
    "texts": b"\x0a\x00" * MANY,
    "map entries": b"\x1a\x00" * MANY,
    "fields of an entry": b"\x1a\x80\x80\x08" + b"\x0a\x00" * MANY,
    "fields of an entry's value": b"\x1a\x84\x80\x08\x12\x80\x80\x08" + b"\x08\x01" * MANY,
    "groups": b"\x23\x24" * MANY,
    "no tags": b"\xff" * MANY * 2,
}


@pytest.mark.parametrize("data", LONG.values(), ids=LONG)
def test_a_long_message_of_many_fields_is_not_parsed(data):
    assert not has_few_fields(data, LOAD)
    with pytest.raises(MessageError, match=f"more than {MAX_PARSED_BYTES} bytes may have {MAX_FIELDS} fields"):
        parse(LOAD, data, may_be_long=True)


@pytest.mark.parametrize("data", LONG.values(), ids=LONG)
def test_a_message_that_is_never_long_is_refused_by_its_length(data):
    with pytest.raises(MessageError, match=f"has {len(data)} bytes; a RepositoryModelLoadRequest may have"):
        parse(LOAD, data)


def test_a_long_message_of_few_fields_is_parsed():
    request = LOAD(model_name="m")
    request.parameters["file:1/model.onnx"].bytes_param = bytes(MAX_PARSED_BYTES)
    assert parse(LOAD, request.SerializeToString(), may_be_long=True) == request


def test_packed_numbers_count_by_their_bytes():
    kind = pb.ModelInferRequest.InferInputTensor
    tensor = kind(name="n" * MAX_PARSED_BYTES, shape=[1] * (MAX_FIELDS - 2))
    assert has_few_fields(tensor.SerializeToString(), kind)
    tensor.shape.append(1)
    assert not has_few_fields(tensor.SerializeToString(), kind)
    assert not has_few_fields(b"\x1a\x00" * MANY, kind)  # none, again and again


@pytest.mark.parametrize("size", [0, 1, MAX_PARSED_BYTES, MAX_PARSED_BYTES + 1])
def test_what_is_no_message_is_said_to_be_none(size):
    with pytest.raises(MessageError, match="RepositoryModelLoadRequest") if size else does_not_raise():
        parse(LOAD, b"\xff" * size, may_be_long=True)


def test_a_long_message_that_is_cut_off_is_protobufs_to_judge():
    with pytest.raises(MessageError, match="the message is no RepositoryModelLoadRequest"):
        parse(LOAD, b"\x0a\xff\xff\x7f" + bytes(MAX_PARSED_BYTES), may_be_long=True)


@given(st.binary(max_size=200))
def test_any_bytes_are_counted_without_an_error_and_never_refused_if_protobuf_takes_them_without_groups(data):
    is_counted = has_few_fields(data, LOAD)
    try:
        LOAD.FromString(data)
    except DecodeError:
        return
    assert is_counted or any(byte & 7 == 3 for byte in data)

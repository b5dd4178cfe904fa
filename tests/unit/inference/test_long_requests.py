"""Long requests: their long parts stay where they were received, and nothing else may be long."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.wire import inference_pb2 as pb
from forebay_server.engines.datatypes import DTYPE_BY_NAME
from forebay_server.engines.engine import TensorSpec
from forebay_server.service.errors import InvalidRequestError
from forebay_server.service.frontend.messages import MAX_PARSED_BYTES
from forebay_server.service.frontend.open_inference.schema import TensorSchema
from forebay_server.service.frontend.open_inference.tensors import MAX_STRINGS
from forebay_server.service.frontend.open_inference.typed import LongContents, typed_to_bytes
from forebay_server.service.frontend.open_inference.wire import parse

ELEMENTS = 1 << 15
MANY = 1 << 17


def request_of(inputs=1, **contents):
    """A request of more than is parsed by protobuf, with the same typed contents in every input."""
    request = pb.ModelInferRequest(model_name="m", id="7")
    for index in range(inputs):
        tensor = request.inputs.add(name=f"x{index}", datatype="FP32", shape=[1, ELEMENTS])
        tensor.parameters["key"].string_param = "value"
        for field, values in contents.items():
            getattr(tensor.contents, field).extend(values)
    request.outputs.add(name="y")
    request.parameters["timeout"].int64_param = 9
    return request


def split(request):
    """The request without its contents, and those."""
    contents = [tensor.contents.SerializeToString() for tensor in request.inputs]
    for tensor in request.inputs:
        tensor.ClearField("contents")
    return request, contents


@pytest.mark.parametrize("inputs", [1, 3])
def test_long_typed_contents_are_left_out_of_what_is_parsed(inputs):
    request = request_of(inputs, fp32_contents=[1.5] * ELEMENTS)
    data = request.SerializeToString()
    message = parse(data)
    rest, contents = split(request)
    assert message.request == rest
    assert [bytes(message.contents[index]) for index in range(inputs)] == contents
    assert all(wire.obj is data for wire in message.contents.values())


def test_contents_that_come_twice_are_merged_as_protobuf_does():
    half = request_of(int_contents=[3] * ELEMENTS).inputs[0]
    twice = half.SerializeToString() + pb.ModelInferRequest.InferInputTensor(contents=half.contents).SerializeToString()
    data = b"\x2a" + bytes([len(twice) & 0x7F | 0x80, len(twice) >> 7 & 0x7F | 0x80, len(twice) >> 14]) + twice
    message = parse(data)
    assert not message.request.inputs[0].HasField("contents")
    (wire,) = message.contents.values()
    assert pb.InferTensorContents.FromString(bytes(wire)).int_contents == [3] * (2 * ELEMENTS)


def test_short_inputs_beside_long_ones_stay_in_what_is_parsed():
    request = request_of(2, fp32_contents=[1.5] * ELEMENTS)
    request.inputs[0].contents.ClearField("fp32_contents")
    request.inputs[0].contents.fp32_contents.append(2.5)
    message = parse(request.SerializeToString())
    assert message.request.inputs[0] == request.inputs[0]
    assert list(message.contents) == [1]


def test_fields_of_a_long_request_come_in_any_order():
    request = pb.ModelInferRequest(model_name="m", id="7", raw_input_contents=[bytes(MANY), b"b"])
    data = request.SerializeToString()
    tail = pb.ModelInferRequest(model_version="3").SerializeToString() + b"\xa0\x06\x01"
    message = parse(data + tail)
    assert (message.request.model_version, message.request_id) == ("3", "7")
    assert [bytes(raw) for raw in message.raws] == [bytes(MANY), b"b"]
    assert all(raw.obj[:4] == data[:4] for raw in message.raws)  # views of the received message


LONG = {
    "numbers of a shape": (b"\x2a\x84\x80\x08\x1a\x80\x80\x08" + b"\x01" * MANY, "bytes beside its data"),
    "fields of an input": (b"\x2a\x80\x80\x08" + b"\x0a\x00" * (MANY // 2), "more than 1024"),
    "empty shapes of an input": (b"\x2a\x80\x80\x08" + b"\x1a\x00" * (MANY // 2), "more than 1024"),
    "unknown fields": (b"\xa2\x06\x00" * MANY, "more than 1024"),
    "groups": (b"\xa3\x06\xa4\x06" * MANY, "is no ModelInferRequest"),
    "a name": (b"\x0a\x80\x80\x08" + b"m" * MANY, "bytes beside its data"),
    "an id": (b"\x1a\x80\x80\x08" + b"i" * MANY, "bytes beside its data"),
    "an entry of a map": (b"\x22\x80\x80\x08" + b"\x0a\x00" * (MANY // 2), "bytes beside its data"),
    "an input that is cut off": (b"\x2a\x80\x80\x08\x0a\xff\xff\x7f" + bytes(MANY - 4), "is no ModelInferRequest"),
}


@pytest.mark.parametrize(("data", "words"), LONG.values(), ids=LONG)
def test_what_is_long_and_no_data_is_refused_unparsed(data, words):
    assert len(data) > MAX_PARSED_BYTES
    with pytest.raises(InvalidRequestError, match=words) as caught:
        assert parse(data).request
    assert len(caught.value.message) < 200


def tensor_of(datatype):
    return TensorSchema("x", 0, datatype, (-1,), TensorSpec("x", DTYPE_BY_NAME[datatype], (-1,)))


BROKEN = {
    "numbers that are not packed": ("UINT8", b"\x20\x01" * 5000, "send them packed"),
    "half a float": ("FP32", b"\x32\x03abc", "no InferTensorContents"),
    "half a number": ("UINT8", b"\x22\x02\x01\x80", "no InferTensorContents"),
    "a number of eleven bytes": ("UINT64", b"\x2a\x0b" + b"\x80" * 10 + b"\x01", "no InferTensorContents"),
    "a number without an end": ("UINT64", b"\x2a\x80\x80\x20" + b"\x80" * (1 << 19), "no InferTensorContents"),
    "cut off": ("UINT8", b"\x22\x05\x01", "no InferTensorContents"),
    "a group": ("UINT8", b"\x23\x24", "no InferTensorContents"),
    "strings without end": ("BYTES", b"\x42\x00" * (MAX_STRINGS + 2000), "elements one by one"),
    "unknown fields without end": ("UINT8", b"\xa2\x06\x00" * (MAX_STRINGS + 2000), "elements one by one"),
}


@pytest.mark.parametrize(("datatype", "wire", "words"), BROKEN.values(), ids=BROKEN)
def test_contents_that_are_broken_or_endless_are_refused(datatype, wire, words):
    with pytest.raises(InvalidRequestError, match=words):
        typed_to_bytes(tensor_of(datatype), wire, 1, "m")


@given(st.binary(max_size=60), st.sampled_from(["BOOL", "INT32", "UINT64", "FP64", "BYTES", "FP16"]))
def test_any_bytes_are_contents_or_refused(wire, datatype):
    try:
        typed_to_bytes(tensor_of(datatype), wire, 2, "m")
    except InvalidRequestError as error:
        assert error.message  # noqa: PT017 - either is right


def test_packed_numbers_in_several_pieces_are_one_list():
    wire = b"\x22\x02\x01\x02" + b"\x22\x00" + b"\x22\x01\x03"
    assert typed_to_bytes(tensor_of("UINT8"), wire, 3, "m") == bytes([1, 2, 3])


def test_long_contents_are_let_go_of_once_they_were_read():
    values = np.arange(5000, dtype=np.float32)
    wire = pb.InferTensorContents(fp32_contents=values.tolist()).SerializeToString()
    contents = LongContents(tensor_of("FP32"), wire, 5000, "m")
    assert contents.read() == values.tobytes()
    assert contents.wire == b""

"""The walk over a frame's bytes finds the same fields as protobuf, and no bytes of a client break it."""

import struct

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from forebay.wire import frames_pb2 as pb
from forebay_server.service.errors import InvalidSessionError
from forebay_server.service.frontend.frames.codec import (
    MAX_FRAME_FIELDS,
    MAX_PARSED_BYTES,
    FrameMessage,
    parse_client_message,
)

UINT64 = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 127, 128, 2**32, 2**63 - 1, 2**63, 2**64 - 1])
SEQ, CAPTURE_TIME, BUDGET, PAYLOAD = 0x08, 0x10, 0x19, 0x7A


def varint(value: int, least_bytes: int = 1) -> bytes:
    """Encode; `least_bytes` above the need makes it longer than it has to be, which protobuf allows up to ten."""
    out = bytearray()
    while value >= 0x80 or len(out) + 1 < least_bytes:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def delimited(tag: int, content: bytes) -> bytes:
    return varint(tag) + varint(len(content)) + content


NUMBERS = st.builds(varint, UINT64, st.integers(1, 10))
UNKNOWN_FIELDS = st.one_of(
    st.builds(lambda field, value: varint(field << 3) + value, st.integers(4, 14) | st.integers(16, 3000), NUMBERS),
    st.builds(
        lambda field, value: varint(field << 3 | 1) + value, st.integers(4, 14), st.binary(min_size=8, max_size=8)
    ),
    st.builds(lambda field, value: delimited(field << 3 | 2, value), st.integers(4, 14), st.binary(max_size=20)),
    st.builds(
        lambda field, value: varint(field << 3 | 5) + value, st.integers(4, 14), st.binary(min_size=4, max_size=4)
    ),
    st.just(b"\x23\x24"),  # a group that opens and closes
    st.binary(min_size=1, max_size=4),  # anything
)
KNOWN_FIELDS = st.one_of(
    st.builds(lambda value: bytes([SEQ]) + value, NUMBERS),
    st.builds(lambda value: bytes([CAPTURE_TIME]) + value, NUMBERS),
    st.builds(lambda value: bytes([BUDGET]) + struct.pack("<d", value), st.floats()),
    st.builds(lambda value: delimited(PAYLOAD, value), st.binary(max_size=300)),
)
FRAMES = st.lists(KNOWN_FIELDS | KNOWN_FIELDS | KNOWN_FIELDS | UNKNOWN_FIELDS, max_size=6).map(b"".join)
MESSAGES = st.one_of(
    FRAMES.map(lambda frame: delimited(0x12, frame)),
    st.lists(FRAMES.map(lambda frame: delimited(0x12, frame)), max_size=3).map(b"".join),
    st.builds(lambda frame, length: b"\x12" + length + frame, FRAMES, NUMBERS),
    st.builds(lambda frame, junk: delimited(0x12, frame) + junk, FRAMES, st.binary(max_size=5)),
    st.binary(max_size=60),
    st.binary(max_size=60).map(lambda junk: b"\x12" + junk),
)


def by_protobuf(data: bytes):
    """Protobuf's reading of `data`: comparable values, or None for bytes that are no message."""
    try:
        message = pb.ClientMessage.FromString(data)
    except DecodeError:
        return None
    if message.WhichOneof("message") != "frame":
        return message.open if message.HasField("open") else None
    frame = message.frame
    budget = frame.latency_budget_ms if frame.HasField("latency_budget_ms") else None
    return frame.seq, frame.capture_time_us, comparable(budget), frame.payload


def by_codec(data: bytes):
    try:
        message = parse_client_message(data)
    except InvalidSessionError:
        return None
    if not isinstance(message, FrameMessage):
        return message
    return message.seq, message.capture_time_us, comparable(message.latency_budget_ms), bytes(message.payload)


def comparable(budget):
    """NaN equals nothing, its bytes do."""
    return None if budget is None else struct.pack("<d", budget)


@given(MESSAGES)
@example(delimited(0x12, delimited(PAYLOAD, b"abc") + bytes([SEQ, 5])))  # payload first
@example(delimited(0x12, bytes([SEQ, 1]) + delimited(PAYLOAD, b"abc") + delimited(PAYLOAD, b"d")))  # payload twice
@example(delimited(0x12, bytes([CAPTURE_TIME]) + varint(2**64 - 1)))  # one microsecond before the epoch
@example(delimited(0x12, bytes([SEQ]) + b"\xff" * 9 + b"\x7f"))  # more than 64 bits
@example(b"\x12\x85\x80\x80\x80\x80\x00" + b"\x7a\x03abc")  # a length of six bytes
@example(delimited(0x12, b"\x7a\x83\x80\x80\x80\x80\x00abc"))
@example(b"")
@example(b"\x12")
@example(b"\x12\x00")
def test_any_bytes_mean_what_protobuf_takes_them_for(data):
    assert by_codec(data) == by_protobuf(data)


@given(UINT64, st.integers(-(2**63), 2**63 - 1), st.none() | st.floats(allow_nan=False), st.binary(max_size=200))
def test_a_frame_as_protobuf_writes_it_is_read_back(seq, capture_time_us, budget_ms, payload):
    frame = pb.Frame(seq=seq, capture_time_us=capture_time_us, latency_budget_ms=budget_ms, payload=payload)
    message = parse_client_message(pb.ClientMessage(frame=frame).SerializeToString())
    assert isinstance(message, FrameMessage)
    assert (message.seq, message.capture_time_us, message.latency_budget_ms) == (seq, capture_time_us, budget_ms)
    assert message.payload == payload


@given(st.data())
def test_a_truncated_frame_is_refused_or_means_what_protobuf_says(data):
    whole = pb.ClientMessage(frame=pb.Frame(seq=300, capture_time_us=-7, latency_budget_ms=5, payload=b"x" * 200))
    whole = whole.SerializeToString()
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with pytest.raises(InvalidSessionError):
        parse_client_message(cut)


def test_the_payload_is_a_view_of_the_bytes_received():
    data = pb.ClientMessage(frame=pb.Frame(seq=1, payload=b"p" * 1000)).SerializeToString()
    message = parse_client_message(data)
    assert message.payload.obj is data


def test_open_is_returned_as_a_message():
    message = parse_client_message(pb.ClientMessage(open=pb.Open(model="detector", stream_id="c")).SerializeToString())
    assert isinstance(message, pb.Open)
    assert message.model == "detector"


@pytest.mark.parametrize("data", [b"", b"\x1a\x00", b"\x0a\x03\x0a\x01\xff"], ids=["empty", "neither", "not-utf-8"])
def test_a_message_that_is_neither_open_nor_frame_ends_the_session(data):
    with pytest.raises(InvalidSessionError):
        parse_client_message(data)


# --- a message of any size is not read for longer than is useful ----------------------------------------------------

MANY = 1 << 18
LONG = {
    "seq again and again": delimited(0x12, b"\x08\x01" * MANY),
    "capture time again and again": delimited(0x12, b"\x10\x01" * MANY + delimited(PAYLOAD, b"p")),
    "budget again and again": delimited(0x12, (bytes([BUDGET]) + bytes(8)) * MANY),
    "payload again and again": delimited(0x12, b"\x7a\x00" * MANY),
    "unknown numbers": delimited(0x12, b"\x20\x01" * MANY),
    "unknown texts": delimited(0x12, b"\xa2\x01\x00" * MANY),
    "groups": delimited(0x12, b"\x23\x24" * MANY),
    "fields after the payload": delimited(0x12, delimited(PAYLOAD, b"p") + b"\x20\x01" * MANY),
    "frames that are merged": b"\x12\x00" * MANY,
    "open and frame in turn": b"\x0a\x00\x12\x00" * MANY,
    "unknown fields beside the frame": b"\x12\x00" + b"\x20\x01" * MANY,
    "an open with many dimensions": delimited(0x0A, delimited(0x3A, b"\x01" * MANY)),
    "an open with many outputs": delimited(0x0A, b"\x60\x01" * MANY),
    "an open with many names": delimited(0x0A, b"\x6a\x00" * MANY),
    "an open with a long name": delimited(0x0A, delimited(0x1A, b"c" * MANY)),
}


@pytest.mark.parametrize("data", LONG.values(), ids=LONG)
def test_a_message_of_more_fields_than_make_sense_is_refused_unread(data):
    assert pb.ClientMessage.FromString(data).WhichOneof("message")  # nothing but its length is wrong
    with pytest.raises(InvalidSessionError, match=f"message of {len(data)} bytes"):
        parse_client_message(data)


def test_fields_of_a_later_version_are_passed_over_in_a_frame_of_any_size():
    later = (varint(4 << 3) + varint(2**63), delimited(5 << 3 | 2, b"new"), b"\x31" + bytes(8), b"\x3d" + bytes(4))
    before, after = b"".join(later), delimited(20 << 3 | 2, b"n" * 1000)
    data = delimited(0x12, bytes([SEQ, 7]) + before + delimited(PAYLOAD, b"p" * MAX_PARSED_BYTES) + after)
    message = parse_client_message(data)
    assert (message.seq, bytes(message.payload)) == (7, b"p" * MAX_PARSED_BYTES)
    assert message.payload.obj is data


def test_a_frame_may_have_as_many_fields_as_are_read_and_no_more():
    fields = b"\x20\x01" * (MAX_FRAME_FIELDS - 1) + delimited(PAYLOAD, b"p" * MAX_PARSED_BYTES)
    assert parse_client_message(delimited(0x12, fields)).payload.nbytes == MAX_PARSED_BYTES
    with pytest.raises(InvalidSessionError):
        parse_client_message(delimited(0x12, b"\x20\x01" + fields))

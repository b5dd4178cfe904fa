"""Frames become messages that protobuf reads back, copied once and checked against the opened stream."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.client.encode import frame_message, payload_of, size_of
from forebay.wire import frames_pb2 as wire


@given(
    seq=st.integers(1, 2**64 - 1),
    capture_time_us=st.integers(-(2**63), 2**63 - 1),
    budget_ms=st.none() | st.floats(allow_nan=False),
    payloads=st.lists(st.binary(max_size=300), max_size=3),
)
def test_message_is_what_protobuf_would_have_written(seq, capture_time_us, budget_ms, payloads):
    frame = wire.ClientMessage.FromString(frame_message(seq, capture_time_us, budget_ms, payloads)).frame
    assert (frame.seq, frame.capture_time_us, frame.payload) == (seq, capture_time_us, b"".join(payloads))
    assert (frame.latency_budget_ms if frame.HasField("latency_budget_ms") else None) == budget_ms


@pytest.mark.parametrize("nbytes", [0, 127, 128, 16_383, 16_384, 2_097_152])
def test_lengths_at_the_edges_of_a_varint(nbytes):
    assert len(wire.ClientMessage.FromString(frame_message(1, 0, None, [bytes(nbytes)])).frame.payload) == nbytes


@pytest.mark.parametrize(("encoding", "shape"), [("bgr8", (2, 4, 3)), ("rgb8", (2, 4, 3)), ("mono8", (2, 4))])
def test_pixels_keep_their_order(encoding, shape):
    pixels = np.arange(math.prod(shape), dtype=np.uint8).reshape(shape)
    assert b"".join(payload_of(encoding, 4, 2, pixels)) == pixels.tobytes()


def test_view_that_is_not_contiguous_is_straightened():
    pixels = np.arange(2 * 8 * 3, dtype=np.uint8).reshape(2, 8, 3)[:, ::2]
    assert b"".join(payload_of("bgr8", 4, 2, pixels)) == pixels.tobytes()


def test_message_does_not_change_with_the_frame():
    pixels = np.zeros((2, 4, 3), np.uint8)
    message = frame_message(1, 0, None, payload_of("bgr8", 4, 2, pixels))
    pixels[:] = 255
    assert wire.ClientMessage.FromString(message).frame.payload == bytes(24)


def test_size_comes_from_the_array():
    assert size_of("bgr8", np.zeros((48, 64, 3), np.uint8)) == (64, 48)
    assert size_of("nv12", np.zeros((72, 64), np.uint8)) == (64, 48)
    assert size_of("mono8", np.zeros((48, 64), np.uint8)) == (64, 48)


@pytest.mark.parametrize(
    ("encoding", "frame", "error", "words"),
    [
        ("bgr8", np.zeros((2, 4), np.uint8), ValueError, r"\(height, width, 3\)"),
        ("bgr8", np.zeros((2, 4, 3), np.float32), ValueError, "uint8"),
        ("bgr8", np.zeros((4, 4, 3), np.uint8), ValueError, "is 4x4, the stream was opened with 4x2"),
        ("bgr8", bytes(23), ValueError, "takes 24 bytes, the frame has 23"),
        ("bgr8", "text", TypeError, "numpy array or bytes"),
        ("nv12", np.zeros((4, 4), np.uint8), ValueError, r"height \* 3 / 2"),
        ("mono8", np.zeros((2, 4, 3), np.uint8), ValueError, r"the shape \(height, width\), not \(2, 4, 3\)"),
        ("mono8", np.zeros((2, 4), np.uint16), ValueError, "uint8, not uint16"),
        ("mono8", bytes(24), ValueError, "takes 8 bytes, the frame has 24"),
        ("nv12", bytes(13), ValueError, "takes 12 bytes"),
        ("jpeg", np.zeros((2, 4, 3), np.uint8), TypeError, "encode it first"),
        ("png", 7, TypeError, "png file"),
        ("tensor", [b"x"], TypeError, "one array for each input"),
        ("tensor", np.array([b"x"], dtype=object), TypeError, "object arrays"),
    ],
)
def test_frame_that_does_not_fit_is_refused_in_words(encoding, frame, error, words):
    with pytest.raises(error, match=words):
        payload_of(encoding, 4, 2, frame)


def test_size_of_plain_bytes_is_unknown():
    with pytest.raises(ValueError, match="must be given"):
        size_of("bgr8", bytes(24))


def test_encoded_pictures_come_as_bytes_or_as_the_array_of_an_encoder():
    assert b"".join(payload_of("jpeg", 0, 0, bytearray(b"abc"))) == b"abc"
    assert b"".join(payload_of("jpeg", 0, 0, np.frombuffer(b"abc", np.uint8))) == b"abc"


def test_tensors_are_little_endian_and_one_after_the_other():
    first, second = np.array([1, 2], ">i4"), np.array([3.0], np.float32)
    expected = np.array([1, 2], "<i4").tobytes() + second.tobytes()
    assert b"".join(payload_of("tensor", 0, 0, [first, second])) == expected

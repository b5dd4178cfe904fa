"""Frames become messages that protobuf reads back, copied once and checked against the opened stream."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.client.encode import frame_message, payload_of, size_of
from forebay.client.wrong_frame import fault_of_type
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
        ("bgr8", "cam.jpg", TypeError, r"the frame is a path, .* write cv2.imread\('cam.jpg'\), or client.infer"),
        ("jpeg", Path("cam.jpg"), TypeError, r"write open\('cam.jpg', .rb.\).read\(\)"),
        ("bgr8", None, TypeError, "the frame is None: cv2.imread and VideoCapture.read give None"),
        ("jpeg", None, TypeError, "the frame is None"),
        ("tensor", None, TypeError, "the frame is None"),
        ("tensor", "cam.jpg", TypeError, "the frame is a path"),
        ("bgr8", (True, np.zeros((2, 4, 3), np.uint8)), TypeError, "write `_, frame = capture.read"),
        ("bgr8", [[1, 2], [3, 4]], TypeError, "a numpy array of pixels, or their bytes, not list"),
        ("bgr8", np.zeros((500, 1), np.uint8), ValueError, 'open the stream with encoding="jpeg" and write frame.to'),
        ("jpeg", np.zeros((500, 1), np.uint8), TypeError, "write frame.tobytes"),
        ("bgr8", np.zeros((3, 2, 5), np.uint8), ValueError, r"channels last, frame.transpose\(1, 2, 0\)"),
        ("bgr8", np.zeros((1, 2, 4, 3), np.uint8), ValueError, r"write frame\[0\]"),
        ("bgr8", np.zeros((2, 4, 4), np.uint8), ValueError, r"drop the fourth channel, frame\[:, :, :3\]"),
        ("bgr8", np.zeros((2, 4, 3), np.float32), ValueError, r"write \(frame \* 255\).astype\(np.uint8\) if its"),
        ("bgr8", np.zeros((2, 4, 3), np.int64), ValueError, r"not int64: write frame.astype\(np.uint8\)"),
        ("bgr8", np.zeros((2, 4), np.uint8), ValueError, 'open the stream with encoding="mono8"'),
        ("mono8", np.zeros((2, 4, 3), np.uint8), ValueError, 'open the stream with encoding="bgr8"'),
        ("mono8", np.zeros((2, 4, 1), np.uint8), ValueError, r"write frame\[:, :, 0\]"),
        ("mono8", np.zeros((2, 4), np.uint16), ValueError, r"\(frame >> 8\).astype"),
        ("bgr8", b"\xff\xd8\xff\xe0", ValueError, 'is a JPEG file, and .* open it with encoding="jpeg"'),
        ("h264", np.zeros((2, 4, 3), np.uint8), TypeError, "Annex B form, not an array of shape"),
        ("h264", 7, TypeError, "an access unit in Annex B form, not int"),
        ("nv12", np.zeros((4, 4), np.uint8), ValueError, r"height \* 3 / 2"),
        ("mono8", np.zeros((2, 4, 3), np.uint8), ValueError, r"the shape \(height, width\), not \(2, 4, 3\)"),
        ("mono8", np.zeros((2, 4), np.uint16), ValueError, "uint8, not uint16"),
        ("mono8", bytes(24), ValueError, "takes 8 bytes, the frame has 24"),
        ("nv12", bytes(13), ValueError, "takes 12 bytes"),
        ("jpeg", np.zeros((2, 4, 3), np.uint8), TypeError, r'write cv2.imencode\(".jpeg", frame\)\[1\], or'),
        ("png", 7, TypeError, "the bytes of a PNG file, not int"),
        ("tensor", [b"x"], TypeError, "one array for each input"),
        ("tensor", np.array([b"x"], dtype=object), TypeError, "object arrays"),
    ],
)
def test_frame_that_does_not_fit_is_refused_in_words(encoding, frame, error, words):
    with pytest.raises(error, match=words):
        payload_of(encoding, 4, 2, frame)


@pytest.mark.parametrize(
    "frame", [None, "cam.jpg", np.zeros((500, 1), np.uint8), np.zeros(0, np.uint8), b"\xff\xd8\xff"]
)
def test_a_first_frame_without_a_size_is_refused_for_what_it_is(frame):
    with pytest.raises((TypeError, ValueError), match=r"is None|is a path|have the shape|is a JPEG file"):
        size_of("bgr8", frame)


def test_pictures_of_other_libraries_have_a_way_in():
    image = type("Image", (), {"__module__": "PIL.Image"})()
    tensor = type("Tensor", (), {"__module__": "torch"})()
    assert 'np.asarray(frame.convert("RGB")), and open the stream with encoding="rgb8"' in str(
        fault_of_type("bgr8", image)
    )
    assert str(fault_of_type("bgr8", tensor)).endswith("not Tensor: write frame.cpu().numpy()")


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

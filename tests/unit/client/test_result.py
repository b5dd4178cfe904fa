"""Messages from the wire become plain values."""

import math

import numpy as np
import pytest

from forebay.client.detection import RotatedBox, RunLengths
from forebay.client.from_wire import opened_from_wire, result_from_wire, tensor_from_wire
from forebay.client.result import Opened, Status
from forebay.wire import frames_pb2 as wire


def test_every_status_of_the_wire_has_its_word():
    codes = {value.number for value in wire.StatusCode.DESCRIPTOR.values} - {wire.STATUS_UNSPECIFIED}
    statuses = {result_from_wire(wire.Result(status=wire.Status(code=code)), 0, 0, 0).status for code in codes}
    assert statuses == set(Status) - {Status.NOT_SENT, Status.UNANSWERED}


def test_status_of_a_newer_server_is_a_failure():
    message = wire.Result()
    message.status.code = 99
    assert result_from_wire(message, 0, 0, 0).status is Status.FAILED


def test_result_carries_everything_over():
    message = wire.Result(
        seq=7,
        model_version="3",
        status=wire.Status(code=wire.STATUS_OK),
        late_by_us=1500,
        batch_size=2,
        timings=wire.Timings(queue_us=5, server_total_us=9),
        detections=[
            wire.Detection(
                label="person",
                class_id=0,
                score=0.5,
                box=wire.Box(x_min=0.25, y_min=0, x_max=0.5, y_max=1),
                box_pixels=wire.Box(x_min=16, y_min=0, x_max=32, y_max=48),
            )
        ],
        classes=[wire.Classification(label="cat", class_id=2, score=0.75)],
        tensors=[wire.Tensor(name="out", datatype="FP32", shape=[2], data=np.array([1, 2], "<f4").tobytes())],
    )
    result = result_from_wire(message, capture_time_ns=11, age_ms=3.0, round_trip_ms=2.0)
    assert (result.seq, result.model_version, result.late_by_ms, result.batch_size) == (7, "3", 1.5, 2)
    assert (result.timings.queue_us, result.timings.server_total_us) == (5, 9)
    assert result.detections[0].box_pixels.x_max == 32
    assert result.classes[0].label == "cat"
    assert result.tensors["out"].tolist() == [1, 2]
    assert (result.capture_time_ns, result.age_ms, result.round_trip_ms) == (11, 3.0, 2.0)
    assert result.is_ok
    assert result.is_answered


@pytest.mark.parametrize(
    ("datatype", "dtype"), [("BOOL", "?"), ("UINT8", "u1"), ("INT64", "<i8"), ("FP16", "<f2"), ("BF16", "<u2")]
)
def test_tensor_has_the_type_it_names(datatype, dtype):
    array = np.array([[1, 0]], dtype)
    tensor = tensor_from_wire(wire.Tensor(name="t", datatype=datatype, shape=[1, 2], data=array.tobytes()))
    assert tensor.dtype == np.dtype(dtype)
    assert tensor.tolist() == array.tolist()
    assert not tensor.flags.writeable


def test_byte_strings_keep_their_bytes():
    data = b"\x03\0\0\0abc" + b"\0\0\0\0"
    assert tensor_from_wire(wire.Tensor(datatype="BYTES", shape=[2], data=data)).tolist() == [b"abc", b""]


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "words"),
    [
        ("FP31", [1], bytes(4), "unknown datatype"),
        ("FP32", [2], bytes(4), "reshape"),
        ("FP32", [1], bytes(3), "buffer size"),
        ("BYTES", [1], b"\x09\0\0\0abc", "cut short"),
    ],
)
def test_tensor_that_does_not_add_up_is_refused(datatype, shape, data, words):
    with pytest.raises(ValueError, match=words):
        tensor_from_wire(wire.Tensor(name="t", datatype=datatype, shape=shape, data=data))


def test_opened_carries_everything_over():
    spec = wire.TensorSpec(name="in", datatype="UINT8", shape=[416, 416, 3])
    message = wire.Opened(
        session_id="a",
        model="m",
        model_version="2",
        inputs=[spec],
        window=4,
        delivery=2,
        labels=["a"],
        keypoint_names=["k"],
    )
    opened = opened_from_wire(message)
    assert isinstance(opened, Opened)
    assert (opened.delivery, opened.window, opened.inputs[0].shape) == ("every", 4, (416, 416, 3))
    assert opened.tracks is None
    assert opened_from_wire(wire.Opened(track_resumption=1)).tracks == "continued"
    assert opened_from_wire(wire.Opened(track_resumption=2)).tracks == "anew"
    assert (opened.labels, opened.keypoint_names) == (("a",), ("k",))


def test_run_lengths_become_the_mask_of_the_frame():
    runs = RunLengths(width=3, height=2, counts=(1, 2, 2, 1))
    assert runs.to_array().astype(int).tolist() == [[0, 1, 0], [1, 0, 1]]
    assert RunLengths(2, 1, (0, 2)).to_array().all()


def test_run_lengths_that_do_not_fill_the_frame_are_no_mask():
    with pytest.raises(ValueError, match="add up to 5, not 3 x 2"):
        RunLengths(3, 2, (5,)).to_array()


@pytest.mark.parametrize(
    ("angle_radians", "first", "second"), [(0.0, (8, 3), (12, 3)), (math.pi / 2, (11, 2), (11, 6))]
)
def test_corners_of_a_rotated_box_go_around_it(angle_radians, first, second):
    corners = RotatedBox(cx=10, cy=4, width=4, height=2, angle_radians=angle_radians).corners
    assert corners[0] == pytest.approx(first)
    assert corners[1] == pytest.approx(second)
    assert np.mean(corners, axis=0) == pytest.approx((10, 4))

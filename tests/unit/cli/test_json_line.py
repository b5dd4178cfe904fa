"""The lines of `forebay stream` are JSON with every field that a result has, and no other."""

import json

import numpy as np
import pytest

from forebay import Classification, Detection, Result, Status
from forebay.client.detection import Box, Keypoint, Mask, RotatedBox, RunLengths
from forebay.client.result import Timings
from forebay_server.service.cli.json_line import json_line

UNIT = Box(1 / 3, 0.0, 1e-7, 0.125)
PIXELS = Box(426.66666, 0.0, 400.0, 90.0)
PLAIN = {
    "label": 'a "quoted" ü',
    "class_id": 7,
    "score": 0.66667,
    "box": {"x_min": 0.33333, "y_min": 0.0, "x_max": 0.0, "y_max": 0.125},
    "box_pixels": {"x_min": 426.66666, "y_min": 0.0, "x_max": 400.0, "y_max": 90.0},
}


def found(**more):
    return Detection('a "quoted" ü', 7, 2 / 3, UNIT, PIXELS, **more)


def parsed(result, camera="gate", index=4, file=""):
    line = json_line(camera, index, file, result)
    assert "\n" not in line
    return json.loads(line)


def test_an_answer_without_objects():
    timings = Timings(1, 2, 3, 4, 5, 6, 7, 28)
    result = Result(9, Status.OK, timings=timings, model_version="2", late_by_ms=0.25, age_ms=12.3456)
    assert list(parsed(result, 'door "1"').items()) == [
        ("camera", 'door "1"'),
        ("frame", 4),
        ("seq", 9),
        ("status", "ok"),
        ("age_ms", 12.346),
        ("late_by_ms", 0.25),
        ("model_version", "2"),
        (
            "timings",
            {
                "receive_us": 1,
                "decode_us": 2,
                "queue_us": 3,
                "h2d_us": 4,
                "execute_us": 5,
                "d2h_us": 6,
                "deliver_us": 7,
                "server_total_us": 28,
            },
        ),
        ("detections", []),
        ("classes", []),
    ]


def test_a_frame_that_was_not_answered_has_its_reason_alone():
    line = parsed(Result(9, Status.UNANSWERED, "the stream\nbroke"), file="a.jpg")
    expected = {"camera": "gate", "frame": 4, "file": "a.jpg", "seq": 9}
    assert line == expected | {"status": "unanswered", "message": "the stream\nbroke"}


def test_an_answer_without_outputs_has_its_times():
    line = parsed(Result(9, Status.SUPERSEDED, "a newer frame came"))
    assert set(line) == {
        "camera", "frame", "seq", "status", "message", "age_ms", "late_by_ms", "model_version", "timings"
    }  # fmt: skip
    assert line["age_ms"] is None


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, {}),
        (
            {"keypoints": (Keypoint(0.1, 2 / 3, 1.0), Keypoint(0.0, 0.0, 0.0))},
            {"keypoints": [{"x": 0.1, "y": 0.66667, "score": 1.0}, {"x": 0.0, "y": 0.0, "score": 0.0}]},
        ),
        (
            {"rotated_box": RotatedBox(1.0, 2.0, 3.0, 1 / 3, -0.5)},
            {"rotated_box": {"cx": 1.0, "cy": 2.0, "width": 3.0, "height": 0.33333, "angle_radians": -0.5}},
        ),
        ({"track_id": 3}, {"track_id": 3}),
        (
            {"mask": Mask((np.array([[1.006, 2.0], [3.0, 4.5]], np.float64),))},
            {"mask": {"polygons": [[1.01, 2.0, 3.0, 4.5]]}},
        ),
        (
            {"mask": Mask((), RunLengths(4, 3, (2, 10)))},
            {"mask": {"run_lengths": {"width": 4, "height": 3, "counts": [2, 10]}}},
        ),
    ],
)
def test_an_object_has_the_fields_of_its_model(more, expected):
    line = parsed(Result(1, Status.OK, detections=(found(**more), found())))
    assert line["detections"] == [PLAIN | expected, PLAIN]


def test_classes():
    line = parsed(Result(1, Status.OK, classes=(Classification("cat", 1, 7 / 3), Classification("dog", 0, -1.0))))
    assert line["classes"] == [
        {"label": "cat", "class_id": 1, "score": 2.33333},
        {"label": "dog", "class_id": 0, "score": -1.0},
    ]

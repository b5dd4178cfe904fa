"""Keypoints, rotated boxes and masks go over the wire and come back the same, encoded on the loop or by a worker."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.client.from_wire import result_from_wire
from forebay.wire import frames_pb2 as pb
from forebay_server.service.frontend.frames.codec import encode_result
from forebay_server.service.frontend.frames.names import MAX_BYTES, keypoint_names_to_send, labels_to_send
from forebay_server.service.frontend.frames.typed import encode_large, encode_tracked
from forebay_server.service.request import Completion, Timeline
from forebay_server.service.results.classes import Classification
from forebay_server.service.results.detection import Box, Detection, Keypoint, Mask, RotatedBox, RunLengths
from forebay_server.service.results.task import ClassificationTask, DetectionTask
from tests.support.front_end import specs_of
from tests.support.requests import frame_request

FLOATS = st.floats(-1e6, 1e6, width=32)
BOXES = st.builds(Box, FLOATS, FLOATS, FLOATS, FLOATS)
POLYGONS = st.lists(st.tuples(FLOATS, FLOATS), min_size=3, max_size=6).map(lambda points: sum(points, ()))
RUNS = st.lists(st.integers(0, 2**31), max_size=6).map(tuple)
MASKS = st.builds(
    Mask,
    st.lists(POLYGONS, max_size=2).map(tuple),
    st.none() | st.builds(RunLengths, st.integers(1, 9999), st.integers(1, 9999), RUNS),
)
DETECTIONS = st.builds(
    Detection,
    st.text(max_size=8),
    st.integers(0, 2**31 - 1),
    st.floats(0, 1, width=32),
    BOXES,
    BOXES,
    st.lists(st.builds(Keypoint, FLOATS, FLOATS, FLOATS), max_size=3).map(tuple),
    st.none() | st.builds(RotatedBox, FLOATS, FLOATS, FLOATS, FLOATS, FLOATS),
    st.none() | MASKS,
    st.integers(0, 2**32 - 1),
)
PLAIN = Detection("a", 1, 0.5, Box(0.0, 0.0, 0.5, 1.0), Box(0.0, 0.0, 5.0, 10.0))


def received(items, encoded, outputs=None, tensor_indices=()):
    request = frame_request(1, None, arrival_ns=1, timeline=Timeline(received_ns=1, built_ns=1))
    completion = Completion(request, result=items, encoded=encoded, outputs=outputs, batch_size=2, model_version="3")
    return pb.ServerMessage.FromString(encode_result(7, -8, completion, specs_of(), tensor_indices)).result


def as_values(found):
    """A client's detection as nested plain values."""
    mask = None
    if found.mask is not None:
        runs = found.mask.run_lengths
        mask = (
            tuple(tuple(array.ravel().tolist()) for array in found.mask.polygons),
            None if runs is None else (runs.width, runs.height, runs.counts),
        )
    rotated = found.rotated_box
    return (
        found.label,
        found.class_id,
        found.score,
        tuple((point.x, point.y, point.score) for point in found.keypoints),
        None if rotated is None else (rotated.cx, rotated.cy, rotated.width, rotated.height, rotated.angle_radians),
        mask,
        found.track_id,
    )


@given(st.lists(DETECTIONS, max_size=3).map(tuple))
def test_detections_come_back_as_they_were(items):
    by_worker = encode_large(items)
    on_loop = received(items, None)
    assert (by_worker is None) == (not any(item.keypoints or item.mask is not None for item in items))
    assert received(items, by_worker) == on_loop
    found = result_from_wire(on_loop, 0, 0.0, 0.0).detections
    assert [as_values(one) for one in found] == [
        (item.label, item.class_id, item.score, item.keypoints, item.rotated_box, item.mask, item.track_id)
        for item in items
    ]


def test_a_box_alone_costs_a_stream_no_field_and_no_worker():
    assert encode_large((PLAIN,)) is None
    assert encode_large((Classification("cat", 3, 0.5),)) is None
    (message,) = received((PLAIN,), None).detections
    assert {field.name for field, _ in message.ListFields()} == {"label", "class_id", "score", "box", "box_pixels"}


def test_tracks_come_with_their_ids_and_their_state():
    items = (PLAIN._replace(track_id=2**32 - 1), PLAIN)
    result = received(items, encode_tracked(items, b"state"))
    assert result.track_state == b"state"
    assert [item.track_id for item in result_from_wire(result, 0, 0.0, 0.0).detections] == [2**32 - 1, 0]
    assert not received((), encode_tracked((), b"")).track_state


def test_other_parts_of_a_result_stay_where_a_worker_encoded_the_detections():
    items = (PLAIN._replace(mask=Mask(((0.0, 0.0, 1.0, 0.0, 1.0, 1.0),))),) * 40  # its length has two bytes
    outputs = (np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3),)
    result = received(items, encode_large(items), outputs, (0,))
    assert (result.seq, result.capture_time_us, result.status.code) == (7, -8, pb.STATUS_OK)
    assert (result.batch_size, result.model_version, len(result.detections)) == (2, "3", 40)
    assert result.tensors[0].data == outputs[0].tobytes()


def test_half_a_point_of_a_polygon_is_a_fault_of_the_server():
    message = pb.Result(detections=[pb.Detection(mask=pb.Mask(polygons=[pb.Polygon(points=[1.0, 2.0, 3.0])]))])
    with pytest.raises(ValueError, match="reshape"):
        result_from_wire(message, 0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("task", "labels", "keypoint_names"),
    [
        (None, (), ()),
        (DetectionTask(("person",), keypoint_names=("nose", "elbow")), ("person",), ("nose", "elbow")),
        (ClassificationTask(("cat", "dog")), ("cat", "dog"), ()),
        (ClassificationTask(("x" * MAX_BYTES,)), ("x" * MAX_BYTES,), ()),
        (ClassificationTask(("x" * MAX_BYTES, "y")), (), ()),
        (DetectionTask(("\u00fc" * (MAX_BYTES // 2 + 1),)), (), ()),
    ],
)
def test_names_are_sent_if_they_fit(task, labels, keypoint_names):
    assert labels_to_send(task) == labels
    assert keypoint_names_to_send(task) == keypoint_names

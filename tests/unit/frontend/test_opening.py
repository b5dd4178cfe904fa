"""Open is accepted with every default settled, or refused in words that say how to mend it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.wire import frames_pb2 as pb
from forebay_server.service.errors import InvalidSessionError, ServiceError, UnknownModelError, UnsupportedError
from forebay_server.service.frontend.frames.opening import (
    DEFAULT_WINDOW,
    LEAST_DEFAULT_BUDGET_NS,
    MAX_BUDGET_MS,
    accept_open,
)
from forebay_server.service.frontend.frames.track_request import LEAST_SCORE
from forebay_server.service.pictures.picture_input import PictureInput
from forebay_server.service.request import Delivery, Feasibility
from forebay_server.service.results.options import ResultOptions
from forebay_server.service.results.task import ClassificationTask, DetectionTask
from forebay_server.service.settings import ServeSettings
from tests.support.clock import ManualClock
from tests.support.front_end import ManualVersion, open_config, specs_of

PICTURE = PictureInput(4, 4, "RGB")
DETECTOR = DetectionTask(labels=("person",))
CLASSIFIER = ClassificationTask(labels=("cat",))
SETTINGS = ServeSettings(max_window=32, max_image_pixels=1_000_000, max_message_bytes=2_000_000)
RGB = {"encoding": pb.ENCODING_RGB8, "width": 6, "height": 4}


def version(**fields):
    return ManualVersion(ManualClock(), **{"image": PICTURE, **fields})


def accept(target=None, **fields):
    return open_config(target or version(), SETTINGS, **fields)


# --- good -------------------------------------------------------------------------------------------------------------


def test_the_least_open_gets_every_default():
    config = accept()
    assert (config.delivery, config.window) == (Delivery.LATEST, DEFAULT_WINDOW)
    assert (config.priority, config.first_seq) == (1, 0)
    assert config.budget_ns == LEAST_DEFAULT_BUDGET_NS
    assert config.payload_bytes == 48
    assert config.image is None
    assert config.wants.tensor_indices == (0,)
    assert config.wants.options is None


@pytest.mark.parametrize(
    ("fields", "size", "payload_bytes"),
    [
        (RGB, (6, 4), 72),
        ({**RGB, "encoding": pb.ENCODING_BGR8}, (6, 4), 72),
        ({**RGB, "encoding": pb.ENCODING_NV12}, (6, 4), 36),
        ({**RGB, "encoding": pb.ENCODING_MONO8, "width": 5, "height": 3}, (5, 3), 15),
        ({"encoding": pb.ENCODING_JPEG}, (0, 0), None),
        ({"encoding": pb.ENCODING_PNG, "width": 9, "height": 9}, (0, 0), None),
        ({"encoding": pb.ENCODING_TENSOR, "shape": [4, 4, 3]}, (4, 4), 48),
        ({"encoding": pb.ENCODING_RGB8, "width": 65535, "height": 1}, (65535, 1), 196605),
    ],
)
def test_what_a_frame_holds_is_settled(fields, size, payload_bytes):
    config = accept(**fields)
    assert (config.size, config.payload_bytes) == (size, payload_bytes)


@pytest.mark.parametrize(
    ("fields", "budget_ns"),
    [
        ({}, 300_000_000),
        ({"delivery": pb.DELIVERY_EVERY}, None),
        ({"latency_budget_ms": 12.5}, 12_500_000),
        ({"latency_budget_ms": 0}, 0),
        ({"delivery": pb.DELIVERY_EVERY, "latency_budget_ms": 40}, 40_000_000),
    ],
)
def test_the_budget_of_a_model_that_names_none(fields, budget_ns):
    slow = version()
    slow.feasibility = Feasibility(least_service_ns=100_000_000)
    assert accept(slow, **fields).budget_ns == budget_ns


def test_the_models_own_budget_is_the_default_of_latest_alone():
    own = version(latency_budget_ms=33)
    assert accept(own).budget_ns == 33_000_000
    assert accept(own, delivery=pb.DELIVERY_EVERY).budget_ns is None


@pytest.mark.parametrize(
    ("task", "outputs", "is_typed", "indices"),
    [
        (None, [], False, (0, 1)),
        (DETECTOR, [], True, ()),
        (CLASSIFIER, [], True, ()),
        (DETECTOR, [pb.OUTPUT_DETECTIONS], True, ()),
        (DETECTOR, [pb.OUTPUT_TENSORS], False, (0, 1)),
        (CLASSIFIER, [pb.OUTPUT_TENSORS, pb.OUTPUT_CLASSES, pb.OUTPUT_CLASSES], True, (0, 1)),
    ],
)
def test_outputs_wanted(task, outputs, is_typed, indices):
    wants = accept(version(task=task, specs=specs_of(output_shapes=((1,), (2,)))), outputs=outputs).wants
    assert (wants.options is not None) == is_typed
    assert wants.tensor_indices == indices


def test_tensors_come_in_the_order_named():
    target = version(specs=specs_of(output_shapes=((1,), (2,), (3,))))
    assert accept(target, tensor_names=["y2", "y0"]).wants.tensor_indices == (2, 0)


def test_thresholds_are_taken_over_also_where_they_are_zero():
    fields = {"score_threshold": 0.0, "iou_threshold": 1.0, "max_results": 7}
    assert accept(version(task=DETECTOR), **fields).wants.options == ResultOptions(0.0, 1.0, 7)
    assert accept(version(task=DETECTOR)).wants.options == ResultOptions(None, None, 0)


@pytest.mark.parametrize(
    ("masks", "form"),
    [
        (pb.MASK_FORMAT_UNSPECIFIED, "none"),
        (pb.MASK_FORMAT_POLYGONS, "polygons"),
        (pb.MASK_FORMAT_RUN_LENGTHS, "run_lengths"),
    ],
)
def test_masks_come_in_the_form_asked_for(masks, form):
    assert accept(version(task=DETECTOR), masks=masks).wants.options.masks == form


@pytest.mark.parametrize("masks", [-1, 3, 2**31 - 1])
def test_an_unknown_form_of_masks_is_refused(masks):
    with pytest.raises(InvalidSessionError, match=r"open\.masks is .*; give POLYGONS or RUN_LENGTHS"):
        accept(version(task=DETECTOR), masks=masks)


# --- bad --------------------------------------------------------------------------------------------------------------

BAD = [
    ({"stream_id": ""}, "open.stream_id"),
    ({"stream_id": "x" * 257}, "open.stream_id"),
    ({"stream_id": "ü" * 129}, "open.stream_id"),
    ({"model": ""}, "open.model"),
    ({"encoding": pb.ENCODING_UNSPECIFIED}, "open.encoding"),
    ({"encoding": 99}, "open.encoding.*give TENSOR or one of BGR8, H264, H265, JPEG, MONO8, NV12, PNG, RGB8"),
    ({"delivery": 9}, "open.delivery"),
    ({"shape": [4, 4]}, "open.shape"),
    ({"shape": [-1, 4, 3]}, "open.shape"),
    ({"shape": [4, 4, 3] + [1] * 60_000}, "open.shape"),
    ({"latency_budget_ms": -1}, "open.latency_budget_ms"),
    ({"latency_budget_ms": math.nan}, "open.latency_budget_ms"),
    ({"latency_budget_ms": math.inf}, "open.latency_budget_ms"),
    ({"latency_budget_ms": MAX_BUDGET_MS + 1}, "open.latency_budget_ms"),
    ({"tensor_names": ["nope"]}, "open.tensor_names"),
    ({"tensor_names": ["n" * 60_000]}, "open.tensor_names"),
    ({"tensor_names": ["y0"] * 16_000}, "open.tensor_names has 16000 entries"),
    ({"outputs": [pb.OUTPUT_TENSORS] * 30_000}, "open.outputs has 30000 entries"),
    ({**RGB, "width": 0}, "open.width"),
    ({**RGB, "height": 0}, "open.width"),
    ({**RGB, "width": 65536}, "open.width"),
    ({**RGB, "height": 2**32 - 1}, "open.width"),
    ({**RGB, "width": 65535, "height": 65535}, "limit of 1000000"),
    (
        {**RGB, "width": 1000, "height": 1000},
        "messages may have 2000000: send JPEG, or raise max_message_bytes of the server",
    ),
    ({**RGB, "encoding": pb.ENCODING_NV12, "width": 7}, "NV12 needs an even width and an even height, not 7x4"),
    ({**RGB, "encoding": pb.ENCODING_NV12, "height": 5}, "even"),
    ({"encoding": pb.ENCODING_MONO8}, "open.width and open.height are 0x0"),
]


@pytest.mark.parametrize(("fields", "words"), BAD, ids=[str(number) for number in range(len(BAD))])
def test_what_makes_no_sense_is_refused_by_the_name_of_its_field(fields, words):
    with pytest.raises(InvalidSessionError, match=words) as caught:
        accept(**fields)
    assert len(caught.value.message) < 200  # only a part of a client's text comes back


@pytest.mark.parametrize("name", ["score_threshold", "iou_threshold"])
@pytest.mark.parametrize("value", [-0.01, 1.01, math.nan, math.inf])
def test_a_threshold_outside_0_to_1_is_refused(name, value):
    with pytest.raises(InvalidSessionError, match=f"open.{name}"):
        accept(version(task=DETECTOR), **{name: value})


@pytest.mark.parametrize(
    ("target", "fields", "words"),
    [
        (version(image=None), {"encoding": pb.ENCODING_JPEG}, "takes no pictures"),
        (version(image=None), RGB, "takes no pictures"),
        (version(), {"outputs": [pb.OUTPUT_DETECTIONS]}, "OUTPUT_DETECTIONS"),
        (version(task=DETECTOR), {"outputs": [pb.OUTPUT_CLASSES]}, "OUTPUT_CLASSES"),
        (version(task=CLASSIFIER), {"outputs": [pb.OUTPUT_TENSORS, pb.OUTPUT_DETECTIONS]}, "OUTPUT_DETECTIONS"),
        (version(), {"outputs": [pb.OUTPUT_UNSPECIFIED]}, "OUTPUT_UNSPECIFIED"),
        (version(), {"outputs": [77]}, "77"),
    ],
)
def test_what_the_model_does_not_offer_is_unsupported(target, fields, words):
    with pytest.raises(UnsupportedError, match=words):
        accept(target, **fields)


def test_tracks_are_fed_with_low_scores_and_follow_the_streams_threshold():
    config = accept(version(task=DETECTOR), track=True, score_threshold=0.5, track_state=b"state")
    assert config.wants.options.score_threshold == LEAST_SCORE
    assert config.tracks.settings.high_score == config.tracks.least_score == 0.5
    assert (config.tracks.settings.new_score, config.tracks.state) == (0.6, b"state")
    assert accept(version(task=DETECTOR)).tracks is None


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.95, 1.0])
def test_any_threshold_gives_settings_of_a_tracker(threshold):
    config = accept(version(task=DETECTOR), track=True, score_threshold=threshold)
    assert config.wants.options.score_threshold == pytest.approx(min(threshold, LEAST_SCORE))


@pytest.mark.parametrize("task", [None, CLASSIFIER])
def test_only_detections_are_tracked(task):
    with pytest.raises(UnsupportedError, match=r"open\.track: model 'm' does not give detections"):
        accept(version(task=task), track=True)


def test_tracks_need_detections_in_the_result():
    with pytest.raises(InvalidSessionError, match=r"open\.track needs OUTPUT_DETECTIONS"):
        accept(version(task=DETECTOR), track=True, outputs=[pb.OUTPUT_TENSORS])


def test_an_unknown_model_is_the_finders_business():
    def find(name, number):
        raise UnknownModelError(f"no model {name} {number}")

    with pytest.raises(UnknownModelError, match="no model m 7"):
        accept_open(pb.Open(model="m", version="7", stream_id="c", encoding=1), find, SETTINGS)


def accepted_or_refused(target, fields):
    try:
        return accept(target, **fields), None
    except ServiceError as error:
        return None, error


UINT32 = st.integers(0, 2**32 - 1) | st.sampled_from([0, 1, 65535, 65536, 2**32 - 1])
FLOATS = st.floats(width=32) | st.sampled_from([0.0, -0.0, 1.0])


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "stream_id": st.text(max_size=300),
            "encoding": st.integers(-1, 8),
            "width": UINT32,
            "height": UINT32,
            "shape": st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
            "latency_budget_ms": st.floats(),
            "delivery": st.integers(-1, 4),
            "max_in_flight": UINT32,
            "priority": UINT32,
            "outputs": st.lists(st.integers(-1, 5), max_size=3),
            "tensor_names": st.lists(st.sampled_from(["y0", "y1", "", "y"]), max_size=3),
            "score_threshold": FLOATS,
            "iou_threshold": FLOATS,
            "max_results": UINT32,
            "masks": st.integers(-1, 3),
            "track": st.booleans(),
            "track_state": st.binary(max_size=100),
            "resume_from": st.integers(0, 2**64 - 1),
        },
    ),
    st.sampled_from([None, DETECTOR, CLASSIFIER]),
)
def test_any_open_is_accepted_within_the_limits_or_refused_as_a_status(fields, task):
    target = version(task=task)
    config, error = accepted_or_refused(target, fields)
    if error is not None:
        assert error.scope == "session"
        assert error.message
        return
    assert 1 <= config.window <= SETTINGS.max_window
    assert config.budget_ns is None or 0 <= config.budget_ns <= MAX_BUDGET_MS * 1e6
    assert config.payload_bytes is None or 1 <= config.payload_bytes <= SETTINGS.max_message_bytes
    assert config.priority >= 1
    assert all(0 <= index < len(target.specs.outputs) for index in config.wants.tensor_indices)
    assert config.wants.options is not None or config.wants.tensor_indices

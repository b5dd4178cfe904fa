"""Heads are found from the outputs of real exports, and a doubt is never settled by a guess."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.engines.engine import TensorSpec
from forebay_server.service.results.heads.boxes_scores import BoxesScoresHead
from forebay_server.service.results.heads.columns import Hints
from forebay_server.service.results.heads.counted import CountedOutputs, EfficientNmsHead, TfDetectionHead
from forebay_server.service.results.heads.detr import DetrHead, OfficialRtDetrHead, RfDetrHead, RtDetrHead
from forebay_server.service.results.heads.end_to_end import EndToEndHead
from forebay_server.service.results.heads.extras import Extras
from forebay_server.service.results.heads.matching import FORMS, Ambiguous, match
from forebay_server.service.results.heads.names import HeadName
from forebay_server.service.results.heads.yolo import YoloHead
from forebay_server.service.results.heads.yolo_objectness import ObjectnessHead, YoloxHead
from tests.support.head_families import FAMILIES, HEIGHT, WIDTH

NOTHING = Hints()
LARGE = (640, 640)
MASKS = Extras(coefficient_count=32, prototypes_output=1)
POSE = Extras(keypoint_count=17)


def spec(name, *shape, dtype=np.float32):
    return TensorSpec(name, np.dtype(dtype), shape)


def outputs(*shapes):
    return [spec(f"output{index}", *shape) for index, shape in enumerate(shapes)]


PROTOTYPES = (32, 160, 160)

EXPORTS = [
    # Ultralytics, with its metadata
    (outputs((84, 8400)), Hints("detection", class_count=80, is_end_to_end=False), YoloHead(80)),
    (outputs((84, 2000)), Hints("detection", class_count=80, is_end_to_end=False), YoloHead(80)),  # YOLOv3-tiny
    (outputs((116, 8400), PROTOTYPES), Hints("segmentation", class_count=80), YoloHead(80, extras=MASKS)),
    (outputs((56, 8400)), Hints("pose", class_count=1, keypoint_shape=(17, 3)), YoloHead(1, extras=POSE)),
    (outputs((20, 8400)), Hints("oriented", class_count=15), YoloHead(15, extras=Extras(has_angle=True))),
    (outputs((-1, -1)), Hints("detection", class_count=80, is_end_to_end=False), YoloHead(80)),
    (outputs((-1, -1), PROTOTYPES), Hints("segmentation", class_count=80), YoloHead(80, extras=MASKS)),
    (outputs((300, 6)), Hints("detection", class_count=80, is_end_to_end=True), EndToEndHead()),
    (outputs((300, 6)), Hints("detection", class_count=2, is_end_to_end=True), EndToEndHead()),
    (outputs((300, 38), PROTOTYPES), Hints("segmentation", None, 80, None, True), EndToEndHead(extras=MASKS)),
    (outputs((300, 57)), Hints("pose", None, 1, (17, 3), True), EndToEndHead(extras=POSE)),
    (outputs((300, 7)), Hints("oriented", None, 15, None, True), EndToEndHead(extras=Extras(has_angle=True))),
    (outputs((300, 6)), Hints("detection", None, 80, None, False, "RTDETRDecoder"), RtDetrHead(None)),
    (outputs((-1, 6)), Hints("detection", None, 80, None, False, "RTDETRDecoder"), RtDetrHead(None)),
    (outputs((300, 84)), Hints("detection", class_count=80), RtDetrHead(80)),
    # the same without metadata
    (outputs((84, 8400)), NOTHING, YoloHead(80)),
    (outputs((116, 8400), PROTOTYPES), NOTHING, YoloHead(80, extras=MASKS)),
    (outputs((300, 6)), NOTHING, EndToEndHead()),
    (outputs((300, 38), PROTOTYPES), NOTHING, EndToEndHead(extras=MASKS)),
    (outputs((300, 7)), NOTHING, EndToEndHead(extras=Extras(has_angle=True))),
    (outputs((300, 84)), NOTHING, RtDetrHead(80)),
    (outputs((20, 8400)), Hints(class_count=15), YoloHead(15, extras=Extras(has_angle=True))),
    (outputs((56, 8400)), Hints(class_count=1), YoloHead(1, extras=POSE)),
    (outputs((116, 8400), PROTOTYPES), Hints("detection"), YoloHead(80, extras=Extras(coefficient_count=32))),
    (outputs((25200, 85)), NOTHING, ObjectnessHead(80)),
    (outputs((25200, 117), PROTOTYPES), NOTHING, ObjectnessHead(80, extras=MASKS)),
    (outputs((8400, 85)), Hints(head="yolox"), YoloxHead(80, 640, 640)),
    (outputs((8400, 85)), Hints(head="yolox_decoded"), ObjectnessHead(80, name="yolox_decoded")),
    (outputs((8400, 85)), Hints(head="yolo_objectness"), ObjectnessHead(80)),
    # others
    (
        [spec("labels", 300, dtype=np.int64), spec("boxes", 300, 4), spec("scores", 300)],
        NOTHING,
        OfficialRtDetrHead(),
    ),
    ([spec("dets", 300, 4), spec("labels", 300, 91)], Hints(class_count=90), RfDetrHead()),
    ([spec("logits", 100, 92), spec("pred_boxes", 100, 4)], Hints(class_count=91), DetrHead()),
    ([spec("logits", 300, 80), spec("pred_boxes", 300, 4)], Hints(class_count=80), RfDetrHead(0, 1)),
    ([spec("logits", 100, 92), spec("pred_boxes", 100, 4)], Hints(head="rf_detr"), RfDetrHead(0, 1)),
    (outputs((100, 4), (100, 92)), Hints(head="detr"), DetrHead(1, 0)),
    (
        [
            spec("detection_boxes:0", 100, 4),
            spec("detection_classes:0", 100),
            spec("detection_scores:0", 100),
            spec("num_detections:0"),
        ],
        NOTHING,
        TfDetectionHead(CountedOutputs(3, 0, 2, 1)),
    ),
    (
        [
            spec("num_dets", 1, dtype=np.int32),
            spec("det_boxes", 100, 4),
            spec("det_scores", 100),
            spec("det_classes", 100, dtype=np.int32),
        ],
        NOTHING,
        EfficientNmsHead(),
    ),
    (
        [spec("boxes", 3549, 4), spec("scores", 3549), spec("class_ids", 3549, dtype=np.int32)],
        NOTHING,
        BoxesScoresHead(),
    ),
    ([spec("boxes", 896, 4), spec("scores", 896)], NOTHING, BoxesScoresHead(class_ids_output=None)),
]


@pytest.mark.parametrize(("specs", "hints", "head"), EXPORTS)
def test_the_head_of_an_export_is_found(specs, hints, head):
    assert match(specs, LARGE, hints) == head


@pytest.mark.parametrize("size", [(320, 192), (384, 160), (640, 96)])
def test_three_hundred_rows_are_no_anchors_of_a_small_picture(size):
    assert match(outputs((300, 6)), size, NOTHING) == EndToEndHead()


@pytest.mark.parametrize(
    ("specs", "hints", "parameters"),
    [
        (outputs((8400, 85)), NOTHING, [{"head": "yolox_decoded"}, {"head": "yolox"}]),
        (
            outputs((56, 8400)),
            NOTHING,
            [
                {"head": "yolo", "task": "detection"},
                {"head": "yolo", "task": "pose", "keypoint_shape": "17x3"},
            ],
        ),
        (
            outputs((17, 8400)),
            Hints("pose", class_count=1),
            [
                {"head": "yolo", "task": "pose", "keypoint_shape": "4x3"},
                {"head": "yolo", "task": "pose", "keypoint_shape": "6x2"},
            ],
        ),
        (
            outputs((300, 6)),
            Hints(class_count=2),
            [{"head": "end_to_end", "task": "detection"}, {"head": "rt_detr"}],
        ),
        (
            [spec("logits", 100, 92), spec("pred_boxes", 100, 4)],
            NOTHING,
            [{"head": "rf_detr"}, {"head": "detr"}],
        ),
    ],
)
def test_several_heads_that_fit_come_with_the_parameters_that_choose(specs, hints, parameters):
    found = match(specs, LARGE, hints)
    assert isinstance(found, Ambiguous)
    assert [dict(option.parameters) for option in found.options] == parameters


@pytest.mark.parametrize(
    ("specs", "hints"),
    [
        ([], NOTHING),
        (outputs((1000,)), NOTHING),
        (outputs((84, 8400)), Hints(class_count=81)),
        (outputs((88, 8400)), Hints(class_count=80)),
        (outputs((84, 8400)), Hints(head="detr")),
        (outputs((84, 8400)), Hints("segmentation", class_count=80)),
        (outputs((-1, -1)), NOTHING),
        (outputs((300, 5)), NOTHING),
        (outputs((3, 8400)), NOTHING),
        (outputs((255, 80, 80), (255, 40, 40), (255, 20, 20)), NOTHING),
        ([spec("boxes", 300, 5), spec("scores", 300)], NOTHING),
        ([spec("boxes", 300, 4), spec("scores", 300)], Hints("pose")),
    ],
)
def test_outputs_of_no_known_head_match_none(specs, hints):
    assert match(specs, LARGE, hints) is None


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_of_the_oracle_is_found_when_named(name):
    family = FAMILIES[name]
    extras = getattr(family.head, "extras", Extras())
    task = (
        "pose" if extras.keypoint_count else "oriented" if extras.has_angle
        else "segmentation" if extras.coefficient_count else "detection"
    )  # fmt: skip
    names = {
        "rt_detr_official": ("labels", "boxes", "scores"),
        "tf_detection": ("num_detections", "detection_boxes", "detection_scores", "detection_classes"),
        "efficient_nms": ("num_dets", "det_boxes", "det_scores", "det_classes"),
        "boxes_scores": ("boxes", "scores", "class_ids"),
    }.get(family.head.name, ("output0", "output1"))
    arrays = family.outputs(np.random.default_rng(0))
    specs = [TensorSpec(each, array.dtype, array.shape) for each, array in zip(names, arrays, strict=False)]
    shape = (extras.keypoint_count, extras.keypoint_values) if extras.keypoint_count else None
    class_count = None if name == "rt-detr with classes" else 5
    found = match(specs, (WIDTH, HEIGHT), Hints(task, family.head.name, class_count, shape))
    assert found == family.head


def test_every_head_has_a_form():
    assert set(FORMS) == set(HeadName.__args__)


dims = st.sampled_from((-1, 0, 1, 4, 5, 6, 7, 38, 56, 57, 84, 85, 126, 300, 378, 1000, 1134, 8400, 25200))
specs_of_any = st.lists(
    st.builds(
        TensorSpec,
        st.sampled_from(("output0", "boxes", "scores", "labels", "logits", "pred_boxes", "dets", "class_ids")),
        st.sampled_from((np.dtype(np.float32), np.dtype(np.float16), np.dtype(np.int64))),
        st.lists(dims, max_size=4).map(tuple),
    ),
    max_size=5,
)
any_hints = st.builds(
    Hints,
    st.sampled_from((None, "detection", "segmentation", "pose", "oriented")),
    st.sampled_from((None, *FORMS)),
    st.sampled_from((None, 0, 1, 2, 5, 80)),
    st.sampled_from((None, (17, 3), (1, 2))),
    st.sampled_from((None, False, True)),
    st.sampled_from(("", "RTDETRDecoder")),
)


@given(specs_of_any, st.sampled_from((None, (WIDTH, HEIGHT), LARGE)), any_hints)
def test_any_outputs_have_one_answer_and_a_named_head_is_obeyed(specs, size, hints):
    found = match(specs, size, hints)
    heads = [option.head for option in found.options] if isinstance(found, Ambiguous) else [found] if found else []
    assert len(heads) != 1 or not isinstance(found, Ambiguous)
    assert len(set(heads)) == len(heads)
    if hints.head is not None:
        assert {head.name for head in heads} <= {hints.head}

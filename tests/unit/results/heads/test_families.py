"""Every head against its oracle, and the rules that hold for all of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.service.errors import CorruptResultError
from forebay_server.service.pictures.picture_input import PictureInput
from forebay_server.service.results.heads.candidates import MAX_CANDIDATES
from forebay_server.service.results.options import ResultOptions
from forebay_server.service.results.result import make_result
from forebay_server.service.results.task import DetectionTask
from tests.support import detection_oracle as oracle
from tests.support.head_families import FAMILIES, HEIGHT, WIDTH, permuted

AS_THE_MODEL_SAYS = ResultOptions()
RESIZES = ("stretch", "letterbox")
seeds = st.integers(0, 2**32 - 1)
families = st.sampled_from(sorted(FAMILIES))
frames = st.tuples(st.integers(1, 4000), st.integers(1, 4000)).filter(lambda size: 1 / 40 < size[0] / size[1] < 40)
thresholds = st.floats(0.05, 0.9)


def picture_of(resize):
    return PictureInput(WIDTH, HEIGHT, "RGB", resize=resize)


def task_of(family, nms=None):
    return DetectionTask(tuple(f"class {i}" for i in range(100)), head=family.head, nms=nms)


def found_in(arrays, family, frame=(640, 480), resize="letterbox", options=AS_THE_MODEL_SAYS, nms=None):
    return make_result(task_of(family, nms), arrays, options, frame, picture_of(resize))


@given(families, seeds, frames, st.sampled_from(RESIZES), thresholds, thresholds, st.integers(1, 60), st.data())
def test_detections_are_those_of_the_oracle(name, seed, frame, resize, least_score, iou, limit, data):
    family = FAMILIES[name]
    if family.head.name in ("yolo", "end_to_end") and family.head.extras.has_angle:
        resize = "letterbox"  # a stretched rotated box has a test of its own
    nms = data.draw(st.sampled_from((None, "class", "agnostic", "none")))
    arrays = family.outputs(np.random.default_rng(seed))
    found = found_in(arrays, family, frame, resize, ResultOptions(least_score, iou, limit), nms)
    place = oracle.placement(resize, *frame)
    expected = oracle.expected(
        family.read(arrays), place, frame,
        least_score=least_score, iou_threshold=iou, max_results=limit, nms=nms or family.nms,
    )  # fmt: skip
    assert [(item.class_id, item.label) for item in found] == [
        (item.class_id, f"class {item.class_id}") for item in expected
    ]
    assert [item.score for item in found] == pytest.approx([item.score for item in expected], rel=1e-4)
    near = pytest.approx
    slack = 1e-4 * max(frame)
    for ours, theirs in zip(found, expected, strict=True):
        pixels = oracle.frame_box(theirs, place, *frame)
        assert ours.box_pixels == near(pixels, abs=slack)
        assert ours.box == near([x / side for x, side in zip(pixels, frame * 2, strict=True)], abs=1e-4)
        points = [oracle.to_frame(point[:2], place) for point in theirs.keypoints]
        clipped = [(oracle.clip(x, frame[0]), oracle.clip(y, frame[1])) for x, y in points]
        assert [point[:2] for point in ours.keypoints] == [near(point, abs=slack) for point in clipped]
        assert [point.score for point in ours.keypoints] == near([point[2] for point in theirs.keypoints])
        if theirs.angle is None:
            assert ours.rotated_box is None
        else:
            center = oracle.to_frame(theirs.box[:2], place)
            sides = [side / scale for side, scale in zip(theirs.box[2:], place[:2], strict=True)]
            assert ours.rotated_box == near((*center, *sides, theirs.angle), abs=slack)
        assert ours.mask is None
        assert ours.track_id == 0


@given(families, seeds, st.sampled_from(RESIZES))
def test_the_order_of_candidates_changes_nothing(name, seed, resize):
    family = FAMILIES[name]
    rng = np.random.default_rng(seed)
    arrays = family.outputs(rng)
    if family.is_ordered:
        return
    axis = family.anchor_axis[0]
    order = rng.permutation(arrays[0].shape[axis])
    assert found_in(permuted(family, arrays, order), family, resize=resize) == found_in(arrays, family, resize=resize)


@given(families, seeds, frames, st.sampled_from(RESIZES), st.floats(0, 1), st.floats(0, 1), st.integers(1, 50))
def test_results_are_sorted_limited_inside_the_frame_and_above_the_threshold(
    name, seed, frame, resize, least_score, iou, limit
):
    family = FAMILIES[name]
    arrays = family.outputs(np.random.default_rng(seed))
    found = found_in(arrays, family, frame, resize, ResultOptions(least_score, iou, limit))
    assert len(found) <= limit
    assert [item.score for item in found] == sorted((item.score for item in found), reverse=True)
    for item in found:
        assert item.score >= np.float32(least_score)
        assert 0 <= item.box.x_min < item.box.x_max <= 1
        assert 0 <= item.box.y_min < item.box.y_max <= 1
        assert 0 <= item.box_pixels.x_min <= item.box_pixels.x_max <= frame[0]
        assert 0 <= item.box_pixels.y_min <= item.box_pixels.y_max <= frame[1]
        for point in item.keypoints:
            assert 0 <= point.x <= frame[0]
            assert 0 <= point.y <= frame[1]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_leading_dimension_of_one_frame_makes_no_difference(name):
    family = FAMILIES[name]
    arrays = family.outputs(np.random.default_rng(1))
    assert found_in(tuple(array[None] for array in arrays), family) == found_in(arrays, family) != ()


@pytest.mark.parametrize("name", FAMILIES)
def test_halves_give_the_results_of_the_same_numbers_as_singles(name):
    family = FAMILIES[name]
    halves = tuple(
        array.astype(np.float16) if array.dtype == np.float32 else array
        for array in family.outputs(np.random.default_rng(2))
    )
    singles = tuple(array.astype(np.float32) if array.dtype == np.float16 else array for array in halves)
    ours, theirs = found_in(halves, family), found_in(singles, family)
    assert [item.class_id for item in ours] == [item.class_id for item in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one.score == pytest.approx(other.score, rel=1e-3)
        assert one.box == pytest.approx(other.box, abs=2e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_outputs_without_candidates_make_an_empty_result(name):
    family = FAMILIES[name]
    if name == "yolox":
        return  # its number of anchors follows from the picture
    arrays = permuted(family, family.outputs(np.random.default_rng(3)), [])
    if family.anchor_axis[0] is None:
        arrays = (np.zeros_like(arrays[0]), *arrays[1:])
    assert found_in(arrays, family, options=ResultOptions(0.0)) == ()


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("fault", [np.nan, -np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_end_one_frame_with_a_message_and_no_warning(name, fault):
    family = FAMILIES[name]
    arrays = tuple(array.copy() for array in family.outputs(np.random.default_rng(4)))
    for array in arrays:
        if array.dtype == np.float32:
            array[...] = fault
    with pytest.raises(CorruptResultError, match=r"not finite|number of objects"):
        found_in(arrays, family, options=ResultOptions(0.0))


@given(families, seeds, st.sampled_from((np.nan, np.inf, -np.inf, 3e38, -3e38, -1.0)), st.integers(1, 60))
def test_single_wrong_numbers_give_a_message_or_a_result_inside_the_frame(name, seed, fault, count):
    family = FAMILIES[name]
    rng = np.random.default_rng(seed)
    arrays = tuple(array.copy() for array in family.outputs(rng))
    for _ in range(count):
        array = arrays[rng.integers(len(arrays))]
        if array.dtype == np.float32 and array.size:
            array.flat[rng.integers(array.size)] = fault
    try:
        found = found_in(arrays, family, options=ResultOptions(0.3, masks="polygons"))
    except CorruptResultError:
        return
    assert all(0 <= item.box.x_min < item.box.x_max <= 1 and item.class_id >= 0 for item in found)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_missing_output_or_another_shape_is_a_message(name):
    family = FAMILIES[name]
    arrays = family.outputs(np.random.default_rng(5))
    with pytest.raises(CorruptResultError, match=r"the model gave|should be one number"):
        found_in((), family)
    cut = tuple(array[:-1] if family.anchor_axis[0] == 1 else array[..., :-1] for array in arrays)
    for wrong in (cut, tuple(array[None, None] for array in arrays)):
        with pytest.raises(CorruptResultError):
            found_in(wrong, family)


@pytest.mark.parametrize("name", ["yolo", "yolo pose", "yolo oriented", "objectness", "boxes and scores", "rf-detr"])
def test_a_threshold_of_zero_is_bounded(name):
    family = FAMILIES[name]
    arrays = family.outputs(np.random.default_rng(6))
    order = np.tile(np.arange(arrays[0].shape[family.anchor_axis[0]]), 30)
    options = ResultOptions(0.0, 1.0, 10_000)
    assert 0 < len(found_in(permuted(family, arrays, order), family, options=options, nms="none")) <= MAX_CANDIDATES


@pytest.mark.parametrize("name", ["yolo", "yolo pose", "yolo masks", "objectness", "end to end", "boxes and scores"])
def test_a_nan_below_the_score_threshold_does_no_harm(name):
    family = FAMILIES[name]
    arrays = tuple(array.copy() for array in family.outputs(np.random.default_rng(7)))
    expected = found_in(arrays, family)
    items = family.read(arrays)
    for index in [index for index, item in enumerate(items) if item.score < 0.4]:
        candidate = np.moveaxis(arrays[0], family.anchor_axis[0], 0)[index]
        candidate[:4] = np.nan
    assert found_in(arrays, family) == expected != ()


def test_a_class_that_is_negative_or_beyond_all_numbers_is_a_message():
    family = FAMILIES["end to end"]
    arrays = family.outputs(np.random.default_rng(8))
    for wrong in (-1, 3e9):
        arrays[0][:, 5] = wrong
        with pytest.raises(CorruptResultError, match="class ids hold"):
            found_in(arrays, family)


def test_a_class_below_the_first_one_is_a_message_also_where_numbers_have_no_sign():
    family = FAMILIES["tf detection"]
    count, boxes, scores, class_ids = family.outputs(np.random.default_rng(8))
    for dtype in (np.float32, np.uint8):
        with pytest.raises(CorruptResultError, match="class ids hold"):
            found_in((count, boxes, scores, np.zeros_like(class_ids, dtype)), family)


def test_a_count_beyond_the_rows_is_a_message():
    family = FAMILIES["tf detection"]
    arrays = family.outputs(np.random.default_rng(9))
    for wrong in (-1, 41, np.nan, np.inf):
        arrays[0][0] = wrong
        with pytest.raises(CorruptResultError, match="number of objects"):
            found_in(arrays, family)


def test_pixels_of_a_frame_without_a_size_are_a_message():
    family = FAMILIES["yolo"]
    arrays = family.outputs(np.random.default_rng(10))
    with pytest.raises(CorruptResultError, match="send pictures"):
        make_result(task_of(family), arrays, ResultOptions(), (0, 0), None)


def test_a_frame_of_the_models_size_needs_no_picture():
    family = FAMILIES["yolo"]
    arrays = family.outputs(np.random.default_rng(11))
    found = make_result(task_of(family), arrays, ResultOptions(), (WIDTH, HEIGHT), None)
    assert found == found_in(arrays, family, (WIDTH, HEIGHT)) != ()

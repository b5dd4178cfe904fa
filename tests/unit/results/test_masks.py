"""Masks against an oracle that interpolates pixel by pixel."""

import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.service.errors import CorruptResultError
from forebay_server.service.pictures.picture_input import PictureInput
from forebay_server.service.results.frame_map import FrameMap
from forebay_server.service.results.masks import MAX_POINTS, MAX_POLYGONS, MaskLimits, make_masks
from forebay_server.service.results.options import ResultOptions
from forebay_server.service.results.result import make_result
from forebay_server.service.results.run_lengths import run_lengths_of
from forebay_server.service.results.task import DetectionTask
from tests.support import detection_oracle as oracle
from tests.support.head_families import FAMILIES, HEIGHT, WIDTH

seeds = st.integers(0, 2**32 - 1)
frames = st.tuples(st.integers(8, 150), st.integers(8, 150))
resizes = st.sampled_from(("stretch", "letterbox"))


def decoded(run_lengths):
    """The picture of run lengths, as COCO reads them."""
    flat = np.zeros(run_lengths.width * run_lengths.height, bool)
    position, is_inside = 0, False
    for count in run_lengths.counts:
        flat[position : position + count] = is_inside
        position, is_inside = position + count, not is_inside
    assert position == len(flat)
    return flat.reshape(run_lengths.width, run_lengths.height).T


def drawn(polygons, width, height):
    picture = np.zeros((height, width), np.uint8)
    for polygon in polygons:
        points = np.array(polygon).reshape(-1, 2)
        cv2.fillPoly(picture, [np.round(points - 0.5).astype(np.int32)], 1)
    return picture.astype(bool)


def interpolated(total, x, y):
    """Value at a point in pixels of the prototypes, between the centers of four of them."""
    height, width = total.shape
    x, y = x - 0.5, y - 0.5
    left, top = int(np.floor(x)), int(np.floor(y))
    value = 0.0
    for column, share_x in ((left, 1 - (x - left)), (left + 1, x - left)):
        for row, share_y in ((top, 1 - (y - top)), (top + 1, y - top)):
            value += share_x * share_y * total[min(max(row, 0), height - 1), min(max(column, 0), width - 1)]
    return value


def smooth(rng, count=4):
    """Prototypes with blobs."""
    small = rng.normal(size=(count, HEIGHT // 16, WIDTH // 16)).astype(np.float32)
    return np.stack([cv2.resize(each, (WIDTH // 4, HEIGHT // 4), interpolation=cv2.INTER_CUBIC) for each in small])


def where_of(frame, resize):
    return FrameMap(*frame, PictureInput(WIDTH, HEIGHT, "RGB", resize=resize))


def random_box(rng):
    (x_min, x_max), (y_min, y_max) = np.sort(rng.random((2, 2)), axis=1).tolist()
    return np.array([[x_min, y_min, x_max, y_max]])


@given(seeds, frames, resizes)
def test_run_lengths_are_the_pixels_whose_interpolated_sum_is_above_zero(seed, frame, resize):
    rng = np.random.default_rng(seed)
    prototypes, weights, box = smooth(rng), rng.normal(size=(1, 4)).astype(np.float32), random_box(rng)
    (mask,) = make_masks(weights, prototypes, box, where_of(frame, resize), "run_lengths")
    width, height = frame
    ours = np.zeros((height, width), bool) if mask is None else decoded(mask.run_lengths)
    total = np.tensordot(weights[0].astype(np.float64), prototypes.astype(np.float64), axes=1)
    scale_x, scale_y, left, top = oracle.placement(resize, *frame)
    for row, column in zip(rng.integers(0, height, 100), rng.integers(0, width, 100), strict=True):
        x, y = (column + 0.5) / width, (row + 0.5) / height
        is_in_box = box[0][0] <= x < box[0][2] and box[0][1] <= y < box[0][3]
        value = interpolated(total, ((column + 0.5) * scale_x + left) / 4, ((row + 0.5) * scale_y + top) / 4)
        if is_in_box and abs(value) < 0.1 * np.abs(total).max():
            continue  # OpenCV interpolates at 1/32 of a pixel
        assert ours[row, column] == (is_in_box and value > 0)


@given(seeds, frames, resizes)
def test_polygons_differ_by_two_pixels_of_the_model_at_most_and_stay_inside_the_frame(seed, frame, resize):
    rng = np.random.default_rng(seed)
    frame = (frame[0] * 4 + 200, frame[1] * 4 + 200)
    prototypes, weights = smooth(rng), rng.normal(size=(1, 4)).astype(np.float32)
    box, where = np.array([[0.1, 0.1, 0.95, 0.9]]), where_of(frame, resize)
    (outlined,) = make_masks(weights, prototypes, box, where, "polygons")
    (exact,) = make_masks(weights, prototypes, box, where, "run_lengths")
    if exact is None or outlined is None:
        assert exact is outlined
        return
    assert len(outlined.polygons) <= MAX_POLYGONS
    for polygon in outlined.polygons:
        assert 3 <= len(polygon) // 2 <= MAX_POINTS
        xs, ys = polygon[0::2], polygon[1::2]
        assert 0.1 * frame[0] - 12 <= min(xs) <= max(xs) <= 0.95 * frame[0] + 12
        assert 0.1 * frame[1] - 12 <= min(ys) <= max(ys) <= 0.9 * frame[1] + 12
    ours, theirs = drawn(outlined.polygons, *frame), decoded(exact.run_lengths)
    # an outline goes through the centers of pixels of the model's picture, and is simplified
    model_pixel = max(frame[0] / WIDTH, frame[1] / HEIGHT)
    missed = (theirs & ~ours).astype(np.uint8)
    assert cv2.distanceTransform(theirs.astype(np.uint8), cv2.DIST_L2, 5)[missed > 0].max(initial=0) <= 2 * model_pixel
    side = 3 * math.ceil(model_pixel)
    if not has_holes(cv2.morphologyEx(theirs.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((side, side), np.uint8))):
        extra = (ours & ~theirs).astype(np.uint8)  # a piece of a single pixel may be there in one form only
        assert not cv2.erode(extra, np.ones((side, side), np.uint8)).any()


def has_holes(picture):
    _, hierarchy = cv2.findContours(picture.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    return bool((hierarchy[0, :, 3] >= 0).any())


@given(seeds, st.integers(1, 12), st.integers(1, 12), st.floats(0, 1))
def test_run_lengths_can_be_decoded(seed, width, height, share):
    rng = np.random.default_rng(seed)
    left, top = rng.integers(width), rng.integers(height)
    region = rng.random((rng.integers(1, height - top + 1), rng.integers(1, width - left + 1))) < share
    found = run_lengths_of(region, left, top, width, height)
    expected = np.zeros((height, width), bool)
    expected[top : top + region.shape[0], left : left + region.shape[1]] = region
    assert (decoded(found) == expected).all()
    assert all(found.counts[1:])


def test_a_run_goes_on_from_one_column_to_the_next():
    assert run_lengths_of(np.ones((2, 3), bool), 0, 0, 3, 2).counts == (0, 6)
    assert run_lengths_of(np.array([[0, 1], [1, 1]], bool), 0, 0, 3, 2).counts == (1, 3, 2)
    assert run_lengths_of(np.zeros((1, 1), bool), 0, 0, 3, 2).counts == (6,)


def test_a_single_pixel_is_a_rectangle():
    prototypes = np.full((1, HEIGHT // 4, WIDTH // 4), 1, np.float32)
    box = np.array([[10 / WIDTH, 10 / HEIGHT, 11 / WIDTH, 11 / HEIGHT]])
    where = where_of((WIDTH, HEIGHT), "stretch")
    (mask,) = make_masks(np.ones((1, 1), np.float32), prototypes, box, where, "polygons")
    assert mask.polygons == ((10, 10, 11, 10, 11, 11, 10, 11),)


def test_an_object_below_zero_everywhere_has_no_mask():
    prototypes = np.full((1, HEIGHT // 4, WIDTH // 4), -1, np.float32)
    where = where_of((200, 100), "letterbox")
    assert make_masks(np.ones((1, 1), np.float32), prototypes, np.array([[0, 0, 1, 1]]), where, "polygons") == [None]


@pytest.mark.parametrize("limits", [MaskLimits(pixels=2 * 200 * 100 + 50), MaskLimits(numbers=5)])
def test_beyond_the_limits_the_lowest_scores_come_without_a_mask(limits):
    prototypes = np.full((1, HEIGHT // 4, WIDTH // 4), 1, np.float32)
    where, boxes = where_of((200, 100), "stretch"), np.array([[0, 0, 1, 1]] * 4)
    found = make_masks(np.ones((4, 1), np.float32), prototypes, boxes, where, "run_lengths", limits)
    assert [mask is not None for mask in found] == [True, True, False, False]


def test_prototypes_that_are_not_finite_are_a_message():
    prototypes = np.full((1, HEIGHT // 4, WIDTH // 4), np.nan, np.float32)
    where = where_of((200, 100), "stretch")
    with pytest.raises(CorruptResultError, match="mask prototypes"):
        make_masks(np.ones((1, 1), np.float32), prototypes, np.array([[0, 0, 1, 1]]), where, "polygons")


@given(seeds, frames, resizes, st.sampled_from(("yolo masks", "objectness masks", "end to end masks")))
def test_each_detection_has_the_mask_of_its_own_coefficients(seed, frame, resize, name):
    family = FAMILIES[name]
    rng = np.random.default_rng(seed)
    arrays = family.outputs(rng)
    options = ResultOptions(0.3, 0.5, 20, masks="run_lengths")
    picture = PictureInput(WIDTH, HEIGHT, "RGB", resize=resize)
    found = make_result(DetectionTask((), head=family.head), arrays, options, frame, picture)
    place = oracle.placement(resize, *frame)
    expected = oracle.expected(
        family.read(arrays), place, frame, least_score=0.3, iou_threshold=0.5, max_results=20, nms=family.nms
    )
    assert len(found) == len(expected)
    for ours, theirs in zip(found[:3], expected[:3], strict=True):
        total = np.tensordot(np.array(theirs.coefficients), arrays[1].astype(np.float64), axes=1)
        inside = np.zeros(frame[::-1], bool) if ours.mask is None else decoded(ours.mask.run_lengths)
        left, top, right, bottom = ours.box_pixels
        for x, y in rng.uniform((left, top), (right, bottom), (20, 2)).astype(int) + 0.5:
            value = interpolated(total, (x * place[0] + place[2]) / 4, (y * place[1] + place[3]) / 4)
            if left < x < right and top < y < bottom and abs(value) > 0.1 * np.abs(total).max():
                assert inside[int(y), int(x)] == (value > 0)

"""Drawings on pictures."""

from dataclasses import replace

import numpy as np
import pytest

from forebay import Box, Detection, Keypoint, Mask, RotatedBox, RunLengths
from forebay_server.service.cli.overlay import FIRST, INK, annotate, colour_of, summary_of, tile

PICTURE = np.full((300, 400, 3), 128, np.uint8)


def found(label="person", class_id=0, score=0.9, box=(0.25, 0.25, 0.75, 0.75)):
    return Detection(label, class_id, score, Box(*box), Box(*box))


def test_picture_is_not_changed_and_gets_a_caption():
    before = PICTURE.copy()
    drawn = annotate(PICTURE, [found()], "camera-1", "1 person")
    assert np.array_equal(PICTURE, before)
    assert drawn.shape[0] > 300
    assert drawn.shape[1:] == (400, 3)
    assert tuple(drawn[0, 200]) == INK


def is_near(pixel, colour):
    return np.abs(pixel.astype(int) - colour).max() < 40


def test_box_is_drawn_where_it_is():
    drawn = annotate(PICTURE, [found()], "camera-1")[-300:]
    assert is_near(drawn[200, 100], FIRST) or is_near(drawn[200, 99], FIRST)
    assert is_near(drawn[200, 299], FIRST)
    assert tuple(drawn[150, 200]) == (128, 128, 128)


def test_a_tracked_object_keeps_a_colour_of_its_own():
    assert colour_of(replace(found(), track_id=3)) == colour_of(replace(found(class_id=5), track_id=3))
    assert len({colour_of(replace(found(), track_id=number)) for number in range(1, 9)}) == 8


def test_box_at_the_edge_stays_inside():
    drawn = annotate(PICTURE, [found(box=(0, 0, 1, 1)), found(box=(0.99, 0.99, 1, 1))], "camera-1")
    assert drawn.shape[1:] == (400, 3)


def test_labels_of_a_crowd_do_not_cover_each_other():
    def pixels_of_plates(detections):
        return np.count_nonzero((annotate(PICTURE, detections, "") == FIRST).all(axis=2))

    crowd = [found(score=0.9 - index / 100) for index in range(30)]
    # above, below and inside the box, first with the name and then with the score alone; then no room is left
    assert pixels_of_plates(crowd) == pixels_of_plates(crowd[:6])


def test_first_class_has_a_colour_of_its_own():
    assert FIRST not in {colour_of(found(class_id=class_id)) for class_id in range(1, 90)}


def test_summary_counts_labels_most_frequent_first():
    assert (
        summary_of([found("car", 2), found(), found(), found("traffic_light", 9)]) == "2 person, 1 car, 1 traffic light"
    )
    assert summary_of([]) == "nothing found"


def test_letters_that_the_font_lacks_do_no_harm():
    assert annotate(PICTURE, [], "Kamera Tür 1").shape[1] == 400


def test_pictures_are_tiled_nearly_square():
    assert tile([PICTURE]) is PICTURE
    assert tile([PICTURE] * 2).shape == (300, 806, 3)
    assert tile([PICTURE] * 3).shape == (606, 806, 3)


def difference(detection):
    """Where a drawing changed the picture."""
    return (annotate(PICTURE, [detection], "")[-300:] != PICTURE).any(axis=2)


def test_a_rotated_box_is_drawn_instead_of_the_upright_one():
    changed = difference(replace(found(), rotated_box=RotatedBox(200.0, 150.0, 100.0, 60.0, np.pi / 2)))
    assert changed[150, 170]  # the middle of its left side
    assert changed[100, 200]  # of its upper side
    assert not changed[150, 300]  # of the upright box


@pytest.mark.parametrize(
    "mask",
    [
        Mask(polygons=(np.array([(150, 100), (250, 100), (250, 200), (150, 200)], np.float32),)),
        Mask(run_lengths=RunLengths(400, 300, (150 * 300 + 100, *(100, 200) * 99, 100, 150 * 300 + 100))),
    ],
    ids=["polygons", "run lengths"],
)
def test_a_mask_is_tinted_inside_and_nowhere_else(mask):
    changed = difference(replace(found(), mask=mask))
    assert changed[110:190, 160:240].all()
    assert not changed[100:200, 110:140].any()


def test_a_mask_of_another_size_than_the_picture_is_left_out():
    mask = Mask(run_lengths=RunLengths(2, 2, (0, 4)))
    assert np.array_equal(difference(replace(found(), mask=mask)), difference(found()))


def test_seventeen_keypoints_are_a_skeleton_and_unsure_ones_are_left_out():
    points = [Keypoint(120.0 + 10 * number, 150.0, 0.9) for number in range(17)]
    points[16] = Keypoint(390.0, 290.0, 0.1)
    changed = difference(replace(found(), keypoints=tuple(points)))
    assert changed[150, 120:270:10].all()
    assert changed[150, 175]  # a bone between two
    assert not changed[280:, 380:].any()
    few = difference(replace(found(), keypoints=tuple(points[:2])))
    assert few[150, 120]
    assert not few[150, 125]  # without a skeleton, dots alone

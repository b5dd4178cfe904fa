"""Errors and agreement, by hand-made cases."""

import numpy as np
import pytest

from forebay_server.engines.build import verification
from forebay_server.engines.build.verification import Agreement, Found, OutputDifference, likely_cause, overlap

BOX = (0.0, 0.0, 1.0, 1.0)
MOVED = (0.1, 0.0, 1.1, 1.0)
AWAY = (5.0, 5.0, 6.0, 6.0)


def test_errors_are_largest_mean_and_relative_over_all_frames():
    error = OutputDifference("y")
    error.add(np.array([1.0, -4.0]), np.array([1.0, -3.0]))
    error.add(np.array([2.0, 2.0]), np.array([2.0, 2.0]))
    assert (error.max_error, error.mean_error, error.scale, error.relative) == (1.0, 0.25, 4.0, 0.25)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_on_one_side_is_infinitely_far(value):
    error = OutputDifference("y")
    error.add(np.array([1.0]), np.array([value]))
    assert error.max_error == np.inf
    same = OutputDifference("y")
    same.add(np.array([value]), np.array([value]))
    assert same.max_error == 0.0


def test_integers_and_bytes_do_not_wrap_around():
    error = OutputDifference("y")
    error.add(np.array([250], np.uint8), np.array([5], np.uint8))
    assert error.max_error == 245


def test_overlap_is_intersection_over_union():
    assert overlap(BOX, BOX) == 1.0
    assert overlap(BOX, AWAY) == 0.0
    assert overlap(BOX, MOVED) == pytest.approx(0.9 / 1.1)
    assert overlap((0, 0, 0, 0), (0, 0, 0, 0)) == 0.0


def count(reference, other):
    agreement = Agreement()
    agreement.add_detections(reference, other, 0.4)
    return agreement.expected, agreement.matched, agreement.extra


def test_a_box_of_the_same_class_nearby_matches():
    assert count([Found(1, 0.9, BOX)], [Found(1, 0.8, MOVED)]) == (1, 1, 0)
    assert count([Found(1, 0.9, BOX)], [Found(2, 0.8, MOVED)]) == (1, 0, 1)
    assert count([Found(1, 0.9, BOX)], [Found(1, 0.8, AWAY)]) == (1, 0, 1)


def test_boxes_at_the_threshold_neither_count_nor_are_missed():
    assert count([Found(1, 0.44, BOX)], []) == (0, 0, 0)
    assert count([Found(1, 0.46, BOX)], [Found(1, 0.36, BOX)]) == (1, 1, 0)
    assert count([], [Found(1, 0.44, BOX)]) == (0, 0, 0)


def test_one_box_matches_once():
    assert count([Found(1, 0.9, BOX), Found(1, 0.8, MOVED)], [Found(1, 0.9, BOX)]) == (2, 1, 0)


def test_the_share_is_one_where_nothing_is_expected():
    assert Agreement().share == 1.0


def test_classes_agree_by_their_best():
    agreement = Agreement()
    agreement.add_classes(np.array([0.1, 0.9]), np.array([0.4, 0.6]))
    agreement.add_classes(np.array([0.1, 0.9]), np.array([0.6, 0.4]))
    assert (agreement.expected, agreement.matched, agreement.share) == (2, 1, 0.5)


@pytest.mark.parametrize(
    ("other", "cause"),
    [
        ([], verification.MISSING),
        ([Found(2, 0.9, MOVED)], verification.OTHER_CLASSES),
        ([Found(1, 0.9, AWAY)], verification.MOVED),
        ([Found(1, 0.9, BOX), Found(1, 0.9, AWAY)], verification.EXTRA),
    ],
)
def test_the_likely_cause_is_named(other, cause):
    agreement = Agreement()
    agreement.add_detections([Found(1, 0.9, BOX)], other, 0.4)
    assert likely_cause(agreement) == cause
    assert likely_cause(None) == verification.PRECISION

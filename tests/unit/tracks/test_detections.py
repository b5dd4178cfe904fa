"""Detections that cannot be tracked are left out, and the order of the input does not matter."""

import numpy as np
import pytest

from forebay_server.service.tracks.detections import MAX_DETECTIONS, usable

GOOD = (10.0, 10.0, 60.0, 110.0)
NAN, INF = float("nan"), float("inf")


def rows_of(boxes, scores=None, classes=None):
    scores = [0.9] * len(boxes) if scores is None else scores
    classes = [0] * len(boxes) if classes is None else classes
    arrays = np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(classes)
    return usable(*arrays, 0.1).rows.tolist()


@pytest.mark.parametrize(
    "box",
    [(NAN, 0, 1, 1), (0, 0, INF, 1), (0, -INF, 1, 1), (0, 0, 0, 5), (9, 0, 3, 5), (0, 0, 2e7, 5), (0, 0, 1e-7, 5)],
)
def test_a_box_without_sense_is_left_out(box):
    assert rows_of([box, GOOD]) == [1]


@pytest.mark.parametrize("score", [NAN, INF, -0.5, 0.0, 1.5])
def test_a_score_without_sense_is_left_out(score):
    assert rows_of([GOOD, GOOD], scores=[score, 0.5]) == [1]


@pytest.mark.parametrize("class_id", [-1, 2**31, 2**63 - 1, -(2**63)])
def test_a_class_without_sense_is_left_out(class_id):
    assert rows_of([GOOD, GOOD], classes=[class_id, 5]) == [1]


def test_scores_lead_the_order():
    assert rows_of([GOOD, (0, 0, 5, 5), (1, 1, 5, 5)], scores=[0.3, 0.9, 0.9]) == [1, 2, 0]


def test_the_lowest_scores_are_left_out_beyond_the_limit():
    scores = np.linspace(0.2, 0.9, MAX_DETECTIONS + 5)
    kept = rows_of([GOOD] * len(scores), scores=scores)
    assert sorted(kept) == list(range(5, MAX_DETECTIONS + 5))


def test_wider_floats_beyond_the_range_of_float32_are_left_out():
    boxes, scores = np.array([(0, 0, 1e300, 5), GOOD]), np.array([0.9, 1e-300])
    assert usable(boxes, scores, np.zeros(2, np.int64), 0.0).rows.tolist() == [1]


def test_no_detections():
    assert rows_of([]) == []


def test_shapes_that_do_not_fit_are_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match=r"boxes \(2, 4\), scores \(1,\) and classes \(2,\) do not fit"):
        usable(np.zeros((2, 4), np.float32), np.zeros(1, np.float32), np.zeros(2, np.int64), 0.1)

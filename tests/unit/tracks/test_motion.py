"""The filter of `service.tracks.motion`: exact over any interval, and never out of its range."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.service.tracks.motion import Motion, begin, correct, predict, to_centres

SECONDS = st.floats(0.001, 5)


def moving(velocity=(30.0, -12.0, 0.0, 0.0)):
    motion = begin(np.array([[100, 200, 40, 90]], np.float32))
    return motion._replace(velocity=np.array([velocity], np.float32))


def test_corners_become_centre_and_size():
    assert to_centres(np.array([[10, 20, 30, 60]], np.float32)).tolist() == [[20, 40, 20, 40]]


@given(first=SECONDS, second=SECONDS)
def test_one_prediction_equals_two_over_its_parts(first, second):
    at_once, in_parts = predict(moving(), first + second), predict(predict(moving(), first), second)
    for one, two in zip(at_once, in_parts, strict=True):
        np.testing.assert_allclose(one, two, rtol=2e-4, atol=1e-3)


def test_a_velocity_carries_the_box_and_fades():
    early, late, latest = (predict(moving(), seconds) for seconds in (0.1, 30, 60))
    assert early.position[0, 0] == pytest.approx(103, abs=0.2)
    assert late.position[0, 0] == pytest.approx(100 + 30 * 1.5, abs=0.1)  # velocity times persistence
    assert latest.position[0, 0] == pytest.approx(float(late.position[0, 0]), abs=0.1)
    assert abs(late.velocity).max() < 1e-5


def test_no_time_changes_nothing():
    for before, after in zip(moving(), predict(moving(), 0.0), strict=True):
        np.testing.assert_array_equal(before, after)


def test_uncertainty_grows_with_time_and_shrinks_when_seen():
    variances = [float(predict(moving(), seconds).variance[0, 0, 0]) for seconds in (0, 0.1, 0.5, 2)]
    assert variances == sorted(set(variances))
    later = predict(moving(), 0.5)
    assert correct(later, later.position).variance[0, 0, 0] < later.variance[0, 0, 0]


def test_a_shrinking_box_never_turns_inside_out():
    assert predict(moving((0, 0, -1e6, -1e6)), 10.0).position[0, 2:].min() > 0


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(-200, 200), st.booleans()), max_size=30))
def test_variances_stay_those_of_a_distribution(steps):
    motion = moving()
    for seconds, shift, is_seen in steps:
        motion = predict(motion, seconds)
        if is_seen:
            motion = correct(motion, motion.position + np.array([[shift, shift, 0, 0]], np.float32))
    pp, pv, vv = np.moveaxis(motion.variance.astype(np.float64), -1, 0)
    assert (pp > 0).all()
    assert (vv >= 0).all()
    assert (pv * pv <= 1.001 * pp * vv).all()
    assert np.isfinite(motion.position).all()


def test_a_steady_walk_is_learnt():
    motion = begin(np.array([[0, 100, 40, 90]], np.float32))
    for index in range(1, 31):
        motion = correct(predict(motion, 1 / 30), np.array([[2.0 * index, 100, 40, 90]], np.float32))
    assert motion.velocity[0, 0] == pytest.approx(60, rel=0.1)


def test_arguments_are_not_written_to():
    motion = moving()
    copy = Motion(*(array.copy() for array in motion))
    correct(predict(motion, 1.0), motion.position)
    for before, after in zip(copy, motion, strict=True):
        np.testing.assert_array_equal(before, after)

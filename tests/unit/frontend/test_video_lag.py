"""A stream whose decoding lags leaves out units, then groups of pictures, and goes on as soon as the lag is gone."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from forebay_server.service.frontend.frames.video.lag import (
    FORGOTTEN_NS,
    LEAST_LATE_NS,
    LEAST_SKIP_NS,
    PATIENCE_NS,
    Effort,
    Lag,
)

MS = 1_000_000
BUDGET_NS = 100 * MS
LATE_NS = 76 * MS


def overloaded():
    """A stream that gave up a group at the time PATIENCE_NS."""
    lag = Lag(BUDGET_NS)
    found = [lag.effort(LATE_NS, now_ns, is_keyframe=False) for now_ns in (0, PATIENCE_NS - 1, PATIENCE_NS)]
    assert found == [Effort.NEEDED, Effort.NEEDED, Effort.NONE]
    return lag


def test_units_that_no_other_needs_are_left_out_before_the_group_is_given_up():
    lag = Lag(BUDGET_NS)
    found = [lag.effort(wait_ms * MS, wait_ms * MS, is_keyframe=False) for wait_ms in (0, 50, 51, 75, 76, 375, 376)]
    assert found == [Effort.ALL, Effort.ALL, Effort.NEEDED, Effort.NEEDED, Effort.NEEDED, Effort.NEEDED, Effort.NONE]


def test_one_unit_in_time_starts_the_patience_anew():
    lag = Lag(BUDGET_NS)
    lag.effort(LATE_NS, 0, is_keyframe=False)
    assert lag.effort(LATE_NS - MS, PATIENCE_NS, is_keyframe=False) is Effort.NEEDED
    assert lag.effort(LATE_NS, PATIENCE_NS + 1, is_keyframe=False) is Effort.NEEDED
    assert lag.effort(LATE_NS, 2 * PATIENCE_NS + 1, is_keyframe=False) is Effort.NONE


def test_an_overloaded_stream_has_no_patience_until_that_is_forgotten():
    lag = overloaded()
    assert lag.effort(LATE_NS, FORGOTTEN_NS, is_keyframe=False) is Effort.NONE
    assert lag.effort(LATE_NS, 2 * FORGOTTEN_NS, is_keyframe=False) is Effort.NEEDED


def test_an_overloaded_stream_goes_on_while_its_waits_get_shorter_but_not_for_ever():
    lag = overloaded()
    now_ns = PATIENCE_NS
    lag.effort(400 * MS, now_ns, is_keyframe=True)
    lag.effort(400 * MS, now_ns, is_keyframe=True)
    waits_ms = (300, 200, 100, 76)
    assert [lag.effort(wait * MS, now_ns, is_keyframe=False) for wait in waits_ms] == [Effort.NEEDED] * 4
    assert lag.effort(LATE_NS, now_ns, is_keyframe=False) is Effort.NONE
    found = [lag.effort(400 * MS, now_ns, is_keyframe=True) for _ in range(2)]
    assert found == [Effort.NONE, Effort.NEEDED]
    assert lag.effort(399 * MS, now_ns + PATIENCE_NS, is_keyframe=False) is Effort.NONE


def test_a_late_keyframe_is_left_out_only_under_overload_and_never_two_in_a_row():
    lag = Lag(BUDGET_NS)
    found = [lag.effort(LATE_NS, now_ns, is_keyframe=True) for now_ns in (0, PATIENCE_NS)]
    assert found == [Effort.NEEDED] * 2
    lag = overloaded()
    found = [lag.effort(LATE_NS, PATIENCE_NS + index, is_keyframe=True) for index in range(4)]
    assert found == [Effort.NONE, Effort.NEEDED] * 2
    lag.effort(LATE_NS, PATIENCE_NS + 4, is_keyframe=True)
    assert lag.effort(0, PATIENCE_NS + 5, is_keyframe=True) is Effort.ALL
    assert lag.effort(LATE_NS, PATIENCE_NS + 6, is_keyframe=True) is Effort.NONE


def test_short_budgets_leave_room_for_jitter():
    lag = Lag(0)
    assert lag.effort(LEAST_SKIP_NS, 0, is_keyframe=False) is Effort.ALL
    assert [lag.effort(LEAST_LATE_NS, now, is_keyframe=False) for now in (0, PATIENCE_NS)] == [Effort.NEEDED] * 2
    found = [lag.effort(LEAST_LATE_NS + 1, now, is_keyframe=False) for now in (PATIENCE_NS, 2 * PATIENCE_NS)]
    assert found == [Effort.NEEDED, Effort.NONE]


UNITS = st.tuples(st.integers(0, 2000), st.integers(0, 5000), st.booleans())


@given(st.integers(0, 1000), st.lists(UNITS, max_size=80))
def test_the_work_of_a_stream_is_bounded_by_its_lag_and_by_no_memory_of_it(budget_ms, units):
    lag, now_ns, keyframes, late_since_ns = Lag(budget_ms * MS), 0, [], None
    late_ms = max(50, budget_ms * 3 / 4)
    for waited_ms, later_ms, is_keyframe in units:
        now_ns += later_ms * MS
        effort = lag.effort(waited_ms * MS, now_ns, is_keyframe=is_keyframe)
        if waited_ms <= max(25, budget_ms / 2):
            assert effort is Effort.ALL  # as soon as the lag is gone, and for ever
        if waited_ms <= late_ms:
            assert effort is not Effort.NONE
            late_since_ns = None
        elif effort is Effort.NONE:
            late_since_ns = None
        else:
            late_since_ns = now_ns if late_since_ns is None else late_since_ns
            assert is_keyframe or now_ns - late_since_ns < PATIENCE_NS
        if is_keyframe:
            keyframes.append(effort is Effort.NONE)
    assert not any(first and second for first, second in itertools.pairwise(keyframes))
    now_ns += FORGOTTEN_NS
    lag.effort(0, now_ns, is_keyframe=False)
    assert lag.effort(2000 * MS, now_ns, is_keyframe=False) is not Effort.NONE

"""A stream whose decoding lags leaves out units, then groups of pictures, and goes on as soon as the lag is gone."""

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


def test_an_overloaded_stream_has_little_patience_until_that_is_forgotten():
    lag, now_ns = overloaded(), FORGOTTEN_NS
    found = [lag.effort(LATE_NS, now_ns + later * MS, is_keyframe=False) for later in (0, 49, 50)]
    assert found == [Effort.NEEDED, Effort.NEEDED, Effort.NONE]
    now_ns += 50 * MS + FORGOTTEN_NS
    found = [lag.effort(LATE_NS, now_ns + later * MS, is_keyframe=False) for later in (0, 299, 300)]
    assert found == [Effort.NEEDED, Effort.NEEDED, Effort.NONE]


def test_an_overloaded_stream_goes_on_while_its_waits_are_shorter_but_not_for_ever():
    lag, now_ns = overloaded(), PATIENCE_NS + MS
    waits = ((0, 300), (60, 269), (200, 199), (299, 80))
    found = [lag.effort(wait * MS, now_ns + later * MS, is_keyframe=False) for later, wait in waits]
    assert found == [Effort.NEEDED] * 4
    assert lag.effort(80 * MS, now_ns + 300 * MS, is_keyframe=False) is Effort.NONE
    now_ns += FORGOTTEN_NS // 2
    lag.effort(300 * MS, now_ns, is_keyframe=False)
    assert lag.effort(270 * MS, now_ns + 60 * MS, is_keyframe=False) is Effort.NONE


def test_late_keyframes_are_left_out_only_under_overload_and_not_for_longer_than_that_is_remembered():
    lag = Lag(BUDGET_NS)
    found = [lag.effort(LATE_NS, now_ns, is_keyframe=True) for now_ns in (0, PATIENCE_NS)]
    assert found == [Effort.NEEDED] * 2
    lag = overloaded()  # its group began at 0
    now_ns = 1
    found = []
    for _ in range(20):
        now_ns += FORGOTTEN_NS // 4
        found.append(lag.effort(LATE_NS, now_ns, is_keyframe=True))
    assert found == [*[Effort.NONE] * 3, Effort.NEEDED] * 5
    assert lag.effort(25 * MS, now_ns + 1, is_keyframe=True) is Effort.ALL
    assert lag.effort(26 * MS, now_ns + 2, is_keyframe=True) is Effort.NONE


def test_short_budgets_leave_room_for_jitter():
    lag = Lag(0)
    assert lag.effort(LEAST_SKIP_NS, 0, is_keyframe=False) is Effort.ALL
    assert [lag.effort(LEAST_LATE_NS, now, is_keyframe=False) for now in (0, PATIENCE_NS)] == [Effort.NEEDED] * 2
    found = [lag.effort(LEAST_LATE_NS + 1, now, is_keyframe=False) for now in (PATIENCE_NS, 2 * PATIENCE_NS)]
    assert found == [Effort.NEEDED, Effort.NONE]


UNITS = st.tuples(st.integers(0, 2000), st.integers(0, 5000), st.booleans())


@given(st.integers(0, 1000), st.lists(UNITS, max_size=80))
def test_the_work_of_a_stream_is_bounded_by_its_lag_and_by_no_memory_of_it(budget_ms, units):
    lag, now_ns, left_out_since_ns, late_since_ns = Lag(budget_ms * MS), 0, None, None
    late_ms = max(50, budget_ms * 3 / 4)
    for waited_ms, later_ms, is_keyframe in units:
        now_ns += later_ms * MS
        effort = lag.effort(waited_ms * MS, now_ns, is_keyframe=is_keyframe)
        if waited_ms <= max(25, budget_ms / (4 if is_keyframe else 2)):
            assert effort is Effort.ALL  # as soon as the lag is gone, and for ever
        if waited_ms <= late_ms:
            assert effort is not Effort.NONE or is_keyframe
            late_since_ns = None
        elif effort is Effort.NONE:
            late_since_ns = None
        else:
            late_since_ns = now_ns if late_since_ns is None else late_since_ns
            assert is_keyframe or now_ns - late_since_ns < PATIENCE_NS
        if is_keyframe and effort is Effort.NONE:
            left_out_since_ns = now_ns if left_out_since_ns is None else left_out_since_ns
            assert now_ns - left_out_since_ns < FORGOTTEN_NS
        elif is_keyframe:
            left_out_since_ns = None
    now_ns += FORGOTTEN_NS
    lag.effort(0, now_ns, is_keyframe=False)
    assert lag.effort(2000 * MS, now_ns, is_keyframe=False) is not Effort.NONE

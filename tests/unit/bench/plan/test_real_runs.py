"""The search of real runs, and the slowdown that follows from them."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.bench.plan.real_runs import CLOSE, MOST_ABOVE, SLOWDOWNS, RealRun, ends, next_count, slowdown_of

counts = st.integers(1, 500)


def run(cameras, limit):
    return RealRun(cameras, cameras <= limit, 1000, 0.0 if cameras <= limit else 0.1, 50.0, 5.0)


def search(promised, limit, most_runs=30):
    """Return the runs before a server that keeps the target with up to `limit` cameras."""
    runs = []
    while len(runs) < most_runs and (count := next_count(promised, runs)) is not None:
        runs.append(run(count, limit))
    return runs


def simulated(most):
    """Return a simulation in which `most` cameras fit without a slowdown."""
    return lambda count, slowdown: count * slowdown <= most


def test_the_promised_number_is_tried_first_and_then_fewer_until_the_target_is_kept():
    assert [each.cameras for each in search(33, 24)] == [33, 28, 23, 25, 24]
    assert [each.cameras for each in search(4, 3)] == [4, 3]


def test_more_cameras_are_tried_while_the_server_keeps_the_target():
    assert [each.cameras for each in search(30, 34)] == [30, 33, 36, 34]
    assert [each.cameras for each in search(30, 99)] == [30, 33, 36]


def test_nothing_is_tried_where_nothing_is_promised_and_one_camera_that_fails_is_the_end():
    assert search(0, 9) == []
    assert [each.cameras for each in search(1, 0)] == [1]


@given(counts, counts)
def test_the_search_ends_close_around_the_limit(promised, limit):
    runs = search(promised, limit)
    low, high = ends(runs)
    assert len({each.cameras for each in runs}) == len(runs)
    assert low <= limit
    if high is None:
        assert low >= promised * MOST_ABOVE
    else:
        assert limit < high
        assert not low or high - low <= max(1, CLOSE * high)


def test_a_disturbed_run_counts_neither_way_and_its_number_is_tried_again():
    disturbed = dataclasses.replace(run(33, 0), is_disturbed=True)
    assert next_count(33, [disturbed]) == 33
    runs = [run(33, 24), dataclasses.replace(run(28, 99), is_disturbed=True)]
    assert ends(runs) == (0, 33)
    assert next_count(33, runs) == 28


def test_cameras_that_sent_late_count_from_the_second_run_of_their_number_on():
    late = RealRun(33, False, 1000, 0.0, 50.0, 5.0, remark="the generator was the bottleneck")
    assert next_count(33, [late]) == 33
    assert ends([late, late]) == (0, 33)
    assert ends([late, run(33, 40)]) == (33, None)


def test_few_frames_do_not_show_that_more_cameras_fit():
    assert next_count(2, [RealRun(2, True, 48, 0.0, None, 12.0)]) is None
    assert next_count(2, [RealRun(2, True, 300, 0.0, None, 12.0)]) == 3


def test_a_pass_above_a_failure_does_not_count():
    assert ends([run(20, 30), run(25, 10), run(28, 30)]) == (20, 25)


@given(counts, counts, st.integers(1, 4))
def test_the_slowdown_is_within_its_bounds_and_1_where_the_simulation_agrees(promised, limit, most_runs):
    runs = search(promised, limit, most_runs)
    carries = simulated(promised)
    slowdown = slowdown_of(runs, carries)
    assert SLOWDOWNS[0] <= slowdown <= SLOWDOWNS[-1]
    if all(each.passes == carries(each.cameras, 1.0) for each in runs):
        assert slowdown == 1.0


@given(st.integers(20, 500), st.floats(0.4, 1.15))
def test_a_simulation_with_the_slowdown_says_what_the_server_kept(promised, share):
    runs = search(promised, promised * share)
    low, high = ends(runs)
    corrected = promised / slowdown_of(runs, simulated(promised))
    step = SLOWDOWNS[1] / SLOWDOWNS[0]
    assert low / step <= corrected < high * step


@given(st.integers(1, 300), counts, counts, st.integers(1, 4))
def test_a_server_that_keeps_less_never_has_the_smaller_slowdown(promised, one, other, most_runs):
    fewer, more = sorted((one, other))
    of_fewer, of_more = (
        slowdown_of(search(promised, limit, most_runs), simulated(promised)) for limit in (fewer, more)
    )
    assert of_fewer >= of_more


def test_a_server_that_keeps_nothing_has_the_least_slowdown_with_which_the_smallest_number_does_not_fit():
    runs = [run(10, 0), run(8, 0)]
    slowdown = slowdown_of(runs, simulated(12))
    assert 8 * slowdown > 12
    assert 8 * SLOWDOWNS[SLOWDOWNS.index(slowdown) - 1] <= 12
    assert slowdown_of([run(1, 0)], simulated(1000)) == SLOWDOWNS[-1]


def test_where_no_slowdown_agrees_the_number_that_failed_does_not_fit():
    runs = [run(10, 12), RealRun(11, False, 100, 0.5, 90.0, 5.0)]
    uneven = lambda count, slowdown: slowdown <= (1.1 if count == 11 else 0.9)  # noqa: E731 - a simulation's noise
    assert slowdown_of(runs, uneven) > 1.1


@pytest.mark.parametrize(("cameras", "dropped_share"), [(0, 0.1), (2.5, 0.1), (3, 1.1), (3, float("nan"))])
def test_a_run_that_cannot_have_been_is_refused(cameras, dropped_share):
    with pytest.raises(ValueError, match="at least 1 camera"):
        RealRun(cameras, True, 100, dropped_share, None, 5.0)

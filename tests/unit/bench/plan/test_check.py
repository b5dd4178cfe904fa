"""The comparison of plans with real servers: the numbers that it tries."""

from hypothesis import given
from hypothesis import strategies as st

from forebay_server.bench.plan.check import around


def test_the_numbers_around_a_plan_are_a_tenth_below_and_above_and_one_more_at_least():
    assert around(40) == [36, 40, 44]
    assert around(4) == [4, 5]
    assert around(0) == [1]


@given(st.integers(0, 10_000))
def test_some_number_above_every_plan_is_tried(planned):
    assert planned < around(planned)[-1] <= max(planned + 1, 1.1 * planned + 0.5)

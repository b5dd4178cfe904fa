"""Which streams are asked to go: no more than is too much, and those with state last."""

import math

from hypothesis import given
from hypothesis import strategies as st

from forebay_server.service.load.choice import chosen

all_weights = st.lists(st.tuples(st.booleans(), st.floats(0, 1)), max_size=12)
counts = st.integers(0, 15)


def loads(weights, *arguments):
    return [weights[place] for place in chosen(weights, *arguments)]


def test_the_heaviest_that_is_not_too_much_goes_first():
    weights = [(False, 0.06), (False, 0.25), (False, 0.06), (False, 0.1)]
    assert loads(weights, 1, 0.08) == [(False, 0.06)]
    assert loads(weights, 4, 0.3) == [(False, 0.25)]  # 0.05 are left, and no stream is that light
    assert loads(weights, 4, 0.32) == [(False, 0.25), (False, 0.06)]
    assert loads(weights, 2, 0.01) == [(False, 0.06)]
    assert loads(weights, 2) == [(False, 0.25), (False, 0.1)]


def test_streams_with_state_go_last():
    weights = [(True, 0.1), (False, 0.9), (True, 0.5)]
    assert loads(weights, 3, 1.1) == [(False, 0.9), (True, 0.1)]
    assert loads(weights, 3, 0.2) == [(True, 0.1)]  # no other is light enough
    assert loads(weights, 3, 0.05) == [(False, 0.9)]
    assert loads(weights, 3) == [(False, 0.9), (True, 0.5), (True, 0.1)]


@given(all_weights, counts, st.floats(0, 5) | st.just(math.inf))
def test_at_least_one_goes_and_only_where_it_is_alone_is_it_more_than_is_too_much(weights, count, surplus):
    places = chosen(weights, count, surplus)
    assert len(set(places)) == len(places) <= count
    assert places or not weights or not count
    assert len(places) == 1 or sum(weights[place][1] for place in places) <= surplus + 1e-6

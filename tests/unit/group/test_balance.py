"""Streams are asked to go to other front-end processes: enough to even them out, and never again and again."""

import itertools
import random
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.service.group.balance import FIRST_PAUSE_NS, LONGEST_PAUSE_NS, Balance, is_uneven

SECOND_NS = 1_000_000_000
several = st.lists(st.integers(0, 300), min_size=2, max_size=8)


def played(counts, deal, seconds):
    """Let streams that are asked come back at once, where `deal` says; return (time, asked) of each request."""
    balance, asked, counts = Balance(), [], list(counts)
    for second in range(seconds):
        moves = balance.decide(second * SECOND_NS, counts)
        even = sum(counts) / len(counts)
        for front_end, streams in moves:
            counts[front_end] -= streams
            assert streams > 0
            assert counts[front_end] >= even
        for _ in range(sum(move.streams for move in moves)):
            counts[deal()] += 1
        if moves:
            asked.append((second, sum(move.streams for move in moves)))
    return asked, counts


@given(st.integers(0, 300), st.integers(2, 8), st.integers(-1, 1))
def test_an_even_share_is_left_alone(share, processes, more):
    counts = [share] * processes
    counts[0] = max(0, share + more)
    assert not is_uneven(counts)


@pytest.mark.parametrize("counts", [[4, 0], [6, 0], [24, 0], [3, 3, 0, 10], [64, 0, 0, 0, 0, 0, 0, 0], [400, 200, 200]])
def test_what_a_death_leaves_is_uneven(counts):
    assert is_uneven(counts)


@given(several, st.integers(0, 7))
def test_streams_that_all_come_to_one_process_are_asked_ever_more_rarely(counts, target):
    asked, _ = played(counts, lambda: target % len(counts), 7200)
    times = [second for second, _ in asked]
    assert len(times) <= 22
    pauses = [after - before for before, after in itertools.pairwise(times)]
    expected = FIRST_PAUSE_NS
    for pause in pauses:
        assert pause * SECOND_NS >= expected
        expected = min(2 * expected, LONGEST_PAUSE_NS)


@given(several, st.randoms(use_true_random=False))
def test_whatever_the_deal_no_more_are_asked_than_that(counts, chance):
    asked, after = played(counts, lambda: chance.randrange(len(counts)), 1800)
    assert sum(after) == sum(counts)
    assert len(asked) <= 13


@pytest.mark.parametrize("counts", [[24, 0], [64, 0, 0, 0], [60, 4, 0, 0, 0, 0, 0, 0], [300, 300, 0]])
def test_a_fair_deal_evens_streams_out_within_a_minute(counts):
    for seed in range(100):
        deal = partial(random.Random(seed).randrange, len(counts))  # noqa: S311 - no secret
        asked, after = played(counts, deal, 60)
        assert not is_uneven(after)
        assert sum(streams for _, streams in asked) <= 2 * sum(counts)
        assert len(asked) <= 6


@pytest.mark.parametrize(("streams", "processes"), [(64, 5), (64, 10), (128, 10), (256, 10)])
def test_what_a_fair_deal_makes_of_many_streams_is_evened_out_within_a_minute(streams, processes):
    moved = 0
    for seed in range(100):
        deal = partial(random.Random(seed).randrange, processes)  # noqa: S311 - no secret
        counts = [0] * processes
        for _ in range(streams):
            counts[deal()] += 1
        asked, after = played(counts, deal, 60)
        assert max(after) <= 1.41 * streams / processes
        moved += sum(count for _, count in asked)
    assert moved <= 0.2 * streams * 100


@pytest.mark.parametrize("counts", [[2, 1], [3, 2], [3, 1, 2], [5, 5, 2], [14, 12, 11, 14], [16, 13, 12, 11]])
def test_few_streams_more_are_nothing_to_move_them_for(counts):
    assert not is_uneven(counts)


def test_nothing_is_asked_while_a_process_is_missing_and_for_a_pause_after_it():
    balance = Balance()
    for second in range(10):
        assert balance.decide(second * SECOND_NS, [24, None]) == []
    assert balance.decide(10 * SECOND_NS, [24, 0]) == []
    assert balance.decide(11 * SECOND_NS, [24, 0]) == []
    assert balance.decide(12 * SECOND_NS, [24, 0]) == [(0, 12)]


def test_nothing_is_asked_while_streams_that_were_asked_have_not_left_and_for_a_pause_after_it():
    """Those of video leave at a keyframe: until then neither process counts them, as if there were none."""
    balance = Balance()
    assert balance.decide(0, [12, 0]) == []
    now_ns = FIRST_PAUSE_NS
    assert balance.decide(now_ns, [12, 0]) == [(0, 6)]
    for _ in range(10):
        now_ns += SECOND_NS
        assert balance.decide(now_ns, [6, 0], leaving=6) == []
    assert balance.decide(now_ns + SECOND_NS, [6, 0]) == []  # the other process has not told yet
    assert balance.decide(now_ns + FIRST_PAUSE_NS, [6, 6]) == []
    assert balance.decide(now_ns + FIRST_PAUSE_NS, [12, 0]) == [(0, 6)]  # they came back


def test_a_process_that_dies_while_streams_are_leaving_is_noticed():
    balance = Balance()
    balance.decide(0, [24, 0])
    now_ns = FIRST_PAUSE_NS
    for _ in range(6):
        while not balance.decide(now_ns, [24, 0]):
            now_ns += SECOND_NS
    assert balance.decide(now_ns, [24, None], leaving=4) == []
    assert balance.decide(now_ns, [24, 0]) == []
    assert balance.decide(now_ns + FIRST_PAUSE_NS, [24, 0]) == [(0, 12)]


def test_pauses_are_short_again_after_a_calm_time_and_after_a_death():
    balance = Balance()
    balance.decide(0, [1, 1])
    now_ns = FIRST_PAUSE_NS
    for _ in range(8):
        while not balance.decide(now_ns, [24, 0]):
            now_ns += SECOND_NS
    start_ns = now_ns
    balance.decide(now_ns + SECOND_NS, [24, None])
    assert balance.decide(now_ns + 2 * SECOND_NS, [24, 0]) == []
    assert balance.decide(now_ns + 2 * SECOND_NS + FIRST_PAUSE_NS, [24, 0])
    calm_ns = start_ns + 3600 * SECOND_NS
    assert balance.decide(calm_ns, [24, 0])
    assert balance.decide(calm_ns + FIRST_PAUSE_NS, [24, 0])

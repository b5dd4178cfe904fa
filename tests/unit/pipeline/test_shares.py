"""Shares are max-min fair to within one for each stream, nothing is left lying, and nothing is remembered for long."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.service.pipeline.shares import AGED_AT_ONCE, MEMORY_NS, Share, Shares

COUNTS = st.integers(1, 40)
DEMANDS = st.lists(st.integers(0, 30), min_size=1, max_size=12)
SEEDS = st.integers(0, 1 << 32)


def max_min(demands, weights, count):
    """The allocation that is right, in fractions: those that want least for their weight first."""
    left, weight_left, result = float(count), sum(weights), [0.0] * len(demands)
    for index in sorted(range(len(demands)), key=lambda index: demands[index] / weights[index]):
        result[index] = min(demands[index], left * weights[index] / weight_left)
        left -= result[index]
        weight_left -= weights[index]
    return result


def seeded(seed):
    return random.Random(seed)  # noqa: S311 - an order, no secret


class Contest:
    """Streams that always want as much as their demand, and ask for it again and again."""

    def __init__(self, count, demands, weights=None):
        self.shares = Shares(count)
        self.streams = [Share(weight) for weight in weights or [1] * len(demands)]
        self.demands = demands
        self.now_ns = 1

    def take(self, index):
        stream = self.streams[index]
        return stream.in_use < self.demands[index] and self.shares.take(stream, self.now_ns)

    def give_back(self, index):
        if self.streams[index].in_use:
            self.shares.give_back(self.streams[index])

    def ask(self, order=None):
        """All ask until none gets anything."""
        while sum(self.take(index) for index in order or range(len(self.streams))):
            pass

    def turn_over(self, chance):
        """Everything that is in_use comes back once and is wanted again, in any order."""
        for _ in range(3 * self.shares.count):
            order = list(range(len(self.streams)))
            chance.shuffle(order)
            self.give_back(max(order, key=lambda index: self.streams[index].in_use))
            self.give_back(order[0])
            self.ask(order)
        self.check()

    def check(self):
        shares, streams = self.shares, self.streams
        assert shares.in_use == sum(stream.in_use for stream in streams) <= shares.count
        assert all(0 <= stream.extra <= stream.in_use for stream in streams)
        promised = sum(stream.counted * min(stream.units, shares.level) for stream in streams)
        assert promised == shares._promised <= shares.count
        wanting = sum(stream.counted for stream in streams if stream.units > shares.level)
        assert wanting == shares._wanting
        assert not wanting or promised + wanting > shares.count, "the level could be higher"

    @property
    def in_use(self):
        return [stream.in_use for stream in self.streams]


@given(COUNTS, DEMANDS, SEEDS)
def test_everybody_gets_its_max_min_share_to_within_one_and_nothing_is_left_lying(count, demands, seed):
    contest = Contest(count, demands)
    contest.ask()
    contest.turn_over(seeded(seed))
    fair = max_min(demands, [1] * len(demands), count)
    assert all(abs(in_use - share) < 1 for in_use, share in zip(contest.in_use, fair, strict=True)), (
        contest.in_use,
        fair,
    )
    assert sum(contest.in_use) == min(count, sum(demands))


@given(COUNTS, st.lists(st.tuples(st.integers(0, 30), st.integers(1, 5)), min_size=1, max_size=8), SEEDS)
def test_a_share_of_weight_w_gets_what_w_streams_would(count, wants, seed):
    demands, weights = [demand for demand, _ in wants], [weight for _, weight in wants]
    contest = Contest(count, demands, weights)
    contest.ask()
    contest.turn_over(seeded(seed))
    counted = [max(1, min(demand, weight)) for demand, weight in wants]  # no share counts as more than it wants
    rounded = [-(-demand // weight) * part for (demand, weight), part in zip(wants, counted, strict=True)]  # multiples
    for in_use, demand, weight, fair in zip(
        contest.in_use, demands, weights, max_min(rounded, counted, count), strict=True
    ):
        assert min(demand, fair) - weight < in_use < fair + weight
    assert sum(contest.in_use) >= min(count, sum(demands)) - sum(weights) + len(weights)


@given(COUNTS, DEMANDS, st.lists(st.tuples(st.integers(0, 11), st.sampled_from(["take", "back", "leave", "wait"]))))
def test_no_sequence_of_events_breaks_the_books_or_loses_anything(count, demands, events):
    contest = Contest(count, demands)
    for number, event in events:
        index = number % len(demands)
        if event == "take":
            contest.take(index)
        elif event == "back":
            contest.give_back(index)
        elif event == "leave":
            contest.shares.leave(contest.streams[index])
        else:
            contest.now_ns += MEMORY_NS // 2
        contest.check()
    for index, stream in enumerate(contest.streams):
        for _ in range(stream.in_use):
            contest.give_back(index)
        contest.shares.leave(stream)
    contest.check()
    assert contest.shares.in_use == contest.shares._promised == contest.shares._wanting == contest.shares._extras == 0


@given(COUNTS, DEMANDS, st.lists(st.integers(0, 40), max_size=8), SEEDS)
def test_after_the_number_has_changed_streams_share_what_there_is_then(count, demands, counts, seed):
    contest = Contest(count, demands)
    for number in [*counts, count]:
        contest.ask()
        contest.shares.resize(min(number, count))
        while sum(contest.in_use) > contest.shares.count:  # what is held stays held, and comes back in time
            contest.give_back(max(range(len(demands)), key=lambda index: contest.streams[index].in_use))
        contest.check()
    contest.turn_over(seeded(seed))
    for held, fair in zip(contest.in_use, max_min(demands, [1] * len(demands), count), strict=True):
        assert abs(held - fair) < 1


@given(COUNTS, st.integers(1, 50))
def test_a_share_that_is_alone_gets_everything(count, weight):
    shares, share = Shares(count), Share(weight)
    assert all(shares.take(share, 0) for _ in range(count))
    assert not shares.take(share, 0)


@given(COUNTS, st.lists(st.integers(0, 30), min_size=2, max_size=8), SEEDS)
def test_what_a_stream_had_goes_to_the_others_when_it_leaves(count, demands, seed):
    contest = Contest(count, demands)
    contest.ask()
    gone = contest.streams[0]
    contest.demands = [0, *demands[1:]]
    for _ in range(gone.in_use):
        contest.give_back(0)
    contest.shares.leave(gone)
    contest.turn_over(seeded(seed))
    assert sum(contest.in_use) == min(count, sum(contest.demands))


@given(COUNTS, st.lists(st.integers(1, 30), min_size=2, max_size=8), SEEDS)
def test_what_is_no_longer_wanted_is_forgotten(count, demands, seed):
    """A stream that stays and sends nothing any more keeps its promise for a while, and not for ever."""
    contest = Contest(count, demands)
    contest.ask()
    for _ in range(contest.streams[0].in_use):
        contest.give_back(0)
    contest.demands = [0, *demands[1:]]
    for _ in range(2):
        contest.now_ns += MEMORY_NS
        contest.turn_over(seeded(seed))
    assert contest.streams[0].units == 0
    assert sum(contest.in_use) == min(count, sum(contest.demands))


def test_a_camera_keeps_its_place_between_its_frames():
    shares, camera, greedy = Shares(8), Share(), Share()
    shares.take(camera, 0)
    shares.give_back(camera)
    for now_ns in range(0, MEMORY_NS, MEMORY_NS // 100):
        shares.take(greedy, now_ns)
    assert greedy.in_use == 7
    assert shares.take(camera, MEMORY_NS - 1)


def test_a_newcomer_gets_the_next_one_that_comes_back():
    shares, newcomer, greedy = Shares(8), Share(), Share()
    while shares.take(greedy, 0):
        pass
    assert not shares.take(newcomer, 0)
    shares.give_back(greedy)
    assert not shares.take(greedy, 0)
    assert shares.take(newcomer, 0)


def test_more_streams_than_there_is_to_hold_get_one_each_as_they_come():
    contest = Contest(3, [5] * 8)
    contest.ask()
    assert contest.in_use == [1, 1, 1, 0, 0, 0, 0, 0]
    contest.give_back(0)
    assert contest.take(7)
    assert not contest.take(0)


@pytest.mark.parametrize("streams", [10, 1000])
def test_shares_that_want_nothing_any_more_are_let_go_of_as_others_take(streams):
    shares, active = Shares(4), Share()
    for _ in range(streams):
        passing = Share()
        shares.take(passing, 0)
        if passing.in_use:
            shares.give_back(passing)
    assert shares.remembered == streams
    takes = 0
    for period in (1, 2):
        for _ in range(streams // AGED_AT_ONCE + 1):
            if shares.take(active, period * MEMORY_NS):
                shares.give_back(active)
            takes += 1
    assert shares.remembered == 1


def test_the_level_moves_no_further_than_wants_rose():
    """So that a take costs the same however much there is to hold and however many hold it."""

    class Counting(list):
        reads = 0

        def __getitem__(self, index):
            self.reads += 1
            return super().__getitem__(index)

    shares = Shares(4096)
    shares._weights = weights = Counting(shares._weights)
    chance, streams, takes = seeded(1), [Share() for _ in range(300)], 0
    for now_ns in range(0, 20 * MEMORY_NS, MEMORY_NS // 5000):
        stream = chance.choice(streams[: 10 if now_ns % (4 * MEMORY_NS) < 2 * MEMORY_NS else None])
        takes += 1
        if not shares.take(stream, now_ns) or chance.random() < 0.3:
            for _ in range(chance.randint(0, stream.in_use)):
                shares.give_back(stream)
    assert weights.reads < 8 * takes


def test_a_weight_promises_no_more_than_is_wanted():
    shares, camera = Shares(256), Share()
    for _ in range(10):
        assert shares.take(Share(32), 0)
    assert [shares.take(camera, 0) for _ in range(16)] == [True] * 16

"""An overloaded server asks streams to go elsewhere: bounded, without swinging, and never less for ever."""

import math
import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay_server.service.load.meter import BUSY, Load, LoadMeter, Totals
from forebay_server.service.load.moving import share_out
from forebay_server.service.load.overload import (
    EASED,
    LOOKS,
    PROBE_NS,
    ROUND_NS,
    SETTLED_NS,
    SUSTAINED_NS,
    Overload,
    Wish,
)

S = 1_000_000_000


class Machine:
    """A server of a fleet: its streams, by the time at which each came resumed, and the decision."""

    def __init__(self, capacity, streams):
        self.capacity = capacity
        self.streams = [-SETTLED_NS] * streams
        self.unwanted = 0
        self.overload = Overload()
        self.requests = []  # time, streams

    @property
    def utilization(self):
        return len(self.streams) / self.capacity

    def look(self, now_ns):
        """Return how many streams leave."""
        count, streams = self.unwanted, len(self.streams)
        wish = self.overload.decide(now_ns, utilization=self.utilization, streams=streams, unwanted=count)
        assert wish.count <= max(1, len(self.streams) * 0.05)
        movable = [since for since in self.streams if now_ns - since >= SETTLED_NS][: wish.count]
        for each in movable:
            self.streams.remove(each)
        if wish.count:
            self.overload.asked(len(movable), count)
            self.requests.append((now_ns, len(movable)))
        return len(movable)

    def take(self, now_ns):
        self.unwanted += not self.overload.has_room
        self.streams.append(now_ns)


def play(machines, seconds, chance, start=0, attempts=4):
    """Let every stream that is asked come to a machine by chance, as behind a balancer that knows no load.

    A machine without room sends it on; where it may come to several, it is brought back after its last attempt.
    """
    for second in range(start, start + seconds):
        for machine in machines:
            for _ in range(machine.look(second * S)):
                tried = [chance.choice(machines) for _ in range(attempts)]
                last = tried[0] if attempts == 1 else machine
                next((each for each in tried if each.overload.has_room), last).take(second * S)


chances = st.integers(0, 1 << 32).map(random.Random)  # not an enemy's draws
capacities = st.lists(st.integers(5, 60), min_size=2, max_size=6)


@settings(deadline=None, max_examples=6)
@given(capacities, st.integers(1, 200), chances)
def test_requests_are_bounded_and_apart(capacities, streams, chance):
    machines = [Machine(capacity, streams) for capacity in capacities]
    play(machines, 300, chance)
    assert sum(len(machine.streams) for machine in machines) == streams * len(machines)
    for machine in machines:
        times = [at_ns for at_ns, _ in machine.requests]
        assert all(later - earlier >= ROUND_NS for earlier, later in pairwise(times))
        assert all(at_ns >= SUSTAINED_NS for at_ns in times)


@settings(deadline=None, max_examples=6)
@given(st.integers(2, 6), st.integers(20, 60), chances)
def test_where_others_have_room_load_evens_out_and_then_nothing_moves(count, capacity, chance):
    machines = [Machine(capacity, 0) for _ in range(count)]
    machines[0].streams = [-SETTLED_NS] * (capacity * count // 2)
    play(machines, 1800, chance)
    assert all(machine.utilization <= BUSY for machine in machines)
    moved = sum(len(machine.requests) for machine in machines)
    play(machines, 600, chance, start=1800)
    assert sum(len(machine.requests) for machine in machines) == moved


@settings(deadline=None, max_examples=4)
@given(st.integers(1, 6), chances, st.sampled_from([1, 4]))
def test_where_every_server_is_over_only_single_streams_find_out_whether_one_has_room(count, chance, attempts):
    machines = [Machine(10, 100) for _ in range(count)]
    play(machines, 1800, chance, attempts=attempts)
    moved = sum(streams for machine in machines for at_ns, streams in machine.requests if at_ns > 600 * S)
    if count == 1:
        assert moved <= 1200 * S // PROBE_NS + 1
    else:  # a stream comes back only by chance: the servers learn from each other's that come
        assert moved <= count * 100 * 1200 // 600 * 2  # once in five minutes


@settings(deadline=None, max_examples=4)
@given(st.integers(3, 8), chances)
def test_where_every_server_is_over_those_with_less_take_from_the_one_with_the_most(count, chance):
    machines = [Machine(100, 130) for _ in range(count)]
    machines[0].streams = [-SETTLED_NS] * 260
    play(machines, 3600, chance)
    assert machines[0].utilization <= 2.4


def test_a_server_that_gets_its_streams_back_tries_again_and_moves_as_before_once_there_is_room():
    lone, chance = Machine(10, 100), random.Random(1)  # noqa: S311 - not a secret
    play([lone], 1000, chance)
    assert lone.overload.threshold > 5
    room = Machine(1000, 0)
    for second in range(1000, 2000):
        for _ in range(lone.look(second * S)):
            room.take(second * S)
    assert lone.utilization <= BUSY
    moves = [streams for at_ns, streams in lone.requests if at_ns >= 1000 * S]
    assert max(moves) > 1
    assert 92 <= sum(moves) <= 93


def test_pauses_of_a_server_with_little_to_do_ask_no_stream():
    overload, pause = Overload(), Load(0.5, 1.0).offered
    for second in range(60):
        load = 0.5 if second % 7 else pause
        assert not overload.decide(second * S, utilization=load, streams=10, unwanted=0).count


def test_a_moment_of_overload_asks_no_stream_and_closes_the_door_for_that_moment():
    overload = Overload()
    loads = [0.7, 0.7, 1.0, 0.7, 0.7, 0.7, 0.7, 0.7]
    rooms = []
    for second, load in enumerate(loads):
        assert not overload.decide(second * S, utilization=load, streams=10, unwanted=0).count
        rooms.append(overload.has_room)
    assert rooms == [True, True, False, *[True] * 5]


def test_it_asks_until_it_is_some_way_below_its_threshold():
    overload = Overload()

    def asked_at(load, start, seconds):
        looks = range(start, start + seconds)
        wishes = [overload.decide(t * S, utilization=load, streams=10, unwanted=0) for t in looks]
        return [(t, round(wish.surplus, 3)) for t, wish in zip(looks, wishes, strict=True) if wish.count]

    assert asked_at(0.88, 0, 14) == [(10, round(0.88 - EASED * BUSY, 3))]
    assert [t for t, _ in asked_at(0.82, 14, 10)] == [15, 20]  # below the threshold, and not yet below enough
    assert asked_at(0.7, 24, 20) == []
    assert asked_at(0.82, 44, 60) == []  # it was never above the threshold since


def test_the_load_of_a_few_looks_counts():
    overload = Overload()
    loads = [0.95, 0.80] * 10  # every other look is below the threshold
    asked = [overload.decide(t * S, utilization=load, streams=10, unwanted=0).count for t, load in enumerate(loads)]
    assert [t for t, count in enumerate(asked) if count] == [10, 15]
    assert LOOKS * S == ROUND_NS  # the next decision sees the effect


@pytest.mark.parametrize(("busy", "late"), [(0.85, 0.01), (0.86, 0), (0, 0.011), (2.0, 0), (1.0, 0.5), (0.9, 1.0)])
def test_the_load_and_what_is_offered(busy, late):
    load = Load(busy, late)
    assert load.utilization == (max(busy, 1.0) if late > 0.01 else busy)
    assert load.offered == pytest.approx(load.utilization / (1 - min(late, 0.5)))


def test_the_meter_reads_the_difference_to_its_last_reading():
    meter = LoadMeter()
    assert meter.read(S, Totals({"a": (0, 2)})) == Load()
    load = meter.read(3 * S, Totals({"a": (2 * S, 2), "new": (5 * S, 1)}, 100, 5, 220, 4))
    assert load == Load(0.5, 0.05, 110.0, 2.0, instances=2)
    assert meter.read(4 * S, Totals({}, 50, 0, 10, 0)) == Load()  # a process has gone, and its counts with it
    assert meter.read(4 * S, Totals({})) == Load()


def test_processes_share_a_request_by_the_heaviest_streams_those_with_state_last():
    streams = {0: [(False, 0.5), (True, 0.9)], 1: [(False, 0.7), (False, 0.1)], 3: []}
    assert share_out(Wish(1, math.inf), streams) == {1: Wish(1, math.inf)}
    assert share_out(Wish(3, math.inf), streams) == {0: Wish(1, math.inf), 1: Wish(2, math.inf)}
    assert share_out(Wish(9, math.inf), streams) == {0: Wish(2, math.inf), 1: Wish(2, math.inf)}
    shares = share_out(Wish(9, 0.65), streams)
    assert {process: (share.count, round(share.surplus, 3)) for process, share in shares.items()} == {
        0: (1, 0.55),
        1: (1, 0.11),
    }

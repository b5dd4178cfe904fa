"""An overloaded server asks streams to go elsewhere: bounded, without swinging, and never less for ever."""

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay_server.service.load.meter import Load, LoadMeter, Totals
from forebay_server.service.load.moving import share_out
from forebay_server.service.load.overload import PROBE_NS, ROUND_NS, SETTLED_NS, SUSTAINED_NS, Overload

S = 1_000_000_000


class Machine:
    """A server of a fleet: its streams, by the time at which each came resumed, and the decision."""

    def __init__(self, capacity, streams):
        self.capacity = capacity
        self.streams = [-SETTLED_NS] * streams
        self.came = 0
        self.overload = Overload()
        self.requests = []  # time, streams

    @property
    def is_over(self):
        return len(self.streams) > self.capacity

    def look(self, now_ns):
        """Return how many streams leave."""
        count = self.overload.decide(now_ns, is_over=self.is_over, streams=len(self.streams), came=self.came)
        assert count <= max(1, len(self.streams) * 0.05)
        movable = [since for since in self.streams if now_ns - since >= SETTLED_NS][:count]
        for each in movable:
            self.streams.remove(each)
        if count:
            self.overload.asked(len(movable), self.came)
            self.requests.append((now_ns, len(movable)))
        return len(movable)

    def take(self, now_ns):
        self.came += 1
        self.streams.append(now_ns)


def play(machines, seconds, chance, start=0):
    """Let every stream that is asked come to a machine by chance, as behind a balancer that knows no load."""
    for second in range(start, start + seconds):
        for machine in machines:
            for _ in range(machine.look(second * S)):
                chance.choice(machines).take(second * S)


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
    assert not any(machine.is_over for machine in machines)
    moved = sum(len(machine.requests) for machine in machines)
    play(machines, 600, chance, start=1800)
    assert sum(len(machine.requests) for machine in machines) == moved


@settings(deadline=None, max_examples=4)
@given(st.integers(1, 6), chances)
def test_where_every_server_is_over_only_single_streams_find_out_whether_one_has_room(count, chance):
    machines = [Machine(10, 100) for _ in range(count)]
    play(machines, 1800, chance)
    moved = sum(streams for machine in machines for at_ns, streams in machine.requests if at_ns > 600 * S)
    probes = 1200 * S // PROBE_NS
    if count == 1:
        assert probes - 1 <= moved <= probes + 1
    else:  # a stream comes back only by chance: the servers learn from each other's that come
        assert moved <= count * 100 * 1200 // 600 * 2  # once in five minutes


def test_a_server_that_gets_its_streams_back_tries_again_and_moves_as_before_once_there_is_room():
    lone, chance = Machine(10, 100), random.Random(1)  # noqa: S311 - not a secret
    play([lone], 1000, chance)
    assert lone.overload.is_futile
    room = Machine(1000, 0)
    for second in range(1000, 2000):
        for _ in range(lone.look(second * S)):
            room.take(second * S)
    assert not lone.is_over
    moves = [streams for at_ns, streams in lone.requests if at_ns >= 1000 * S]
    assert max(moves) > 1
    assert sum(moves) == 90


def test_it_stops_at_the_first_look_at_which_it_is_not_over():
    overload = Overload()
    asked = [overload.decide(t * S, is_over=t != 12, streams=10, came=0) for t in range(23)]
    assert [t for t, count in enumerate(asked) if count] == [10]


@pytest.mark.parametrize(
    ("busy", "late", "is_over"), [(0.85, 0.01, False), (0.86, 0, True), (0, 0.011, True), (2.0, 0, True)]
)
def test_the_threshold(busy, late, is_over):
    load = Load(busy, late)
    assert load.is_over == is_over
    assert load.utilization == (max(busy, 1.0) if late > 0.01 else busy)


def test_the_meter_reads_the_difference_to_its_last_reading():
    meter = LoadMeter()
    assert meter.read(S, Totals({"a": (0, 2)})) == Load()
    load = meter.read(3 * S, Totals({"a": (2 * S, 2), "new": (5 * S, 1)}, 100, 5, 220, 4))
    assert load == Load(0.5, 0.05, 110.0, 2.0)
    assert meter.read(4 * S, Totals({}, 50, 0, 10, 0)) == Load()  # a process has gone, and its counts with it
    assert meter.read(4 * S, Totals({})) == Load()


def test_processes_share_a_request_by_the_heaviest_streams_those_with_state_last():
    streams = [(0, [(False, 0.5), (True, 0.9)]), (1, [(False, 0.7), (False, 0.1)]), (3, [])]
    assert share_out(1, streams) == {1: 1}
    assert share_out(3, streams) == {0: 1, 1: 2}
    assert share_out(9, streams) == {0: 2, 1: 2}

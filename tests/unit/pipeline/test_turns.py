"""Who executes next, where models of different priority share the cores."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from forebay_server.engines.device import StreamPriority
from forebay_server.service.claim import Claim
from forebay_server.service.errors import InvariantError
from forebay_server.service.pipeline.turns import MAX_WAIT_NS, ModelPriority, TurnQueue, Turns, Waiting
from tests.support.clock import ManualClock

FIRST, NORMAL, SECOND, LAST = ModelPriority(-1), ModelPriority(), ModelPriority(0, 2), ModelPriority(1)


def queue_of(*lanes, cores=1):
    """A queue whose cores are all taken, with lanes that ask one nanosecond after the other; and who has the cores."""
    queue = TurnQueue(cores)
    running = Waiting(NORMAL, cores)
    assert queue.ask(running, 0) == [running]
    for now_ns, lane in enumerate(lanes, start=1):
        assert queue.ask(lane, now_ns) == []
    return queue, running


def order_of(queue, running, *, at_ns=100):
    """Who gets the turn when each gives it back at once."""
    order = []
    while True:
        granted = queue.give_back(running, at_ns)
        if not granted:
            return order
        (running,) = granted
        order.append(running)


def test_the_more_urgent_goes_first_whoever_asked_first():
    lanes = [Waiting(priority, 1) for priority in (LAST, SECOND, NORMAL, FIRST)]
    assert order_of(*queue_of(*lanes)) == lanes[::-1]


def test_equals_go_in_the_order_in_which_they_asked():
    lanes = [Waiting(LAST, 1) for _ in range(3)]
    assert order_of(*queue_of(*lanes)) == lanes


def test_a_free_core_is_given_at_once():
    queue = TurnQueue(2)
    lanes = [Waiting(LAST, 1), Waiting(LAST, 1)]
    assert [queue.ask(lane, 0) for lane in lanes] == [[lanes[0]], [lanes[1]]]


def test_who_has_waited_too_long_goes_ahead_once_and_then_the_urgent_again():
    late, later, urgent, another = Waiting(LAST, 1), Waiting(LAST, 1), Waiting(FIRST, 1), Waiting(FIRST, 1)
    queue, running = queue_of(late, later, urgent, another)
    assert order_of(queue, running, at_ns=MAX_WAIT_NS + 10) == [late, urgent, later, another]


def test_who_has_waited_just_less_does_not():
    late, urgent = Waiting(LAST, 1), Waiting(FIRST, 1)
    queue, running = queue_of(late, urgent)
    assert order_of(queue, running, at_ns=MAX_WAIT_NS) == [urgent, late]


def test_who_needs_many_cores_is_not_passed_by_those_that_need_few():
    wide, narrow = Waiting(FIRST, 2), Waiting(LAST, 1)
    queue = TurnQueue(2)
    running = [Waiting(NORMAL, 1), Waiting(NORMAL, 1)]
    assert [queue.ask(lane, 0) for lane in running] == [[running[0]], [running[1]]]
    assert queue.ask(wide, 1) == queue.ask(narrow, 2) == []
    assert queue.give_back(running[0], 3) == []
    assert queue.give_back(running[1], 4) == [wide]
    assert queue.give_back(wide, 5) == [narrow]


def test_who_has_its_next_batch_ready_does_not_come_too_late_for_its_own_turn():
    urgent, other = Waiting(FIRST, 1), Waiting(LAST, 1)
    queue = TurnQueue(1)
    assert queue.ask(urgent, 0) == [urgent]
    assert queue.ask(other, 1) == []
    assert queue.give_back(urgent, 2, asks_again=True) == [urgent]
    assert queue.give_back(urgent, 3) == [other]
    assert queue.give_back(other, 4, asks_again=True) == [other]


def test_who_gives_up_makes_way():
    queue = TurnQueue(2)
    narrow, wide, last = Waiting(NORMAL, 1), Waiting(FIRST, 2), Waiting(LAST, 1)
    assert queue.ask(narrow, 0) == [narrow]
    assert queue.ask(wide, 1) == queue.ask(last, 2) == []
    assert queue.give_up(wide, 3) == [last]


def test_who_asks_for_more_cores_than_there_are_gets_all():
    queue = TurnQueue(2)
    wide = Waiting(NORMAL, 8)
    assert queue.ask(wide, 0) == [wide]
    assert queue.free_cores == 0
    queue.give_back(wide, 1)
    assert queue.free_cores == 2


class Machine(RuleBasedStateMachine):
    """Whatever lanes do: cores are never overdrawn, the urgent never passed twice in a row, nobody waits in vain."""

    @initialize(cores=st.integers(1, 4))
    def begin(self, cores):
        self.queue, self.now_ns = TurnQueue(cores), 0
        self.running, self.was_ahead = [], False

    def note(self, granted):
        for number, lane in enumerate(granted):
            rivals = [*self.queue.waiting, *granted[number + 1 :]]
            is_ahead = any(rival.priority < lane.priority for rival in rivals)
            assert not is_ahead or self.now_ns - lane.since_ns >= MAX_WAIT_NS
            assert not (is_ahead and self.was_ahead)
            self.was_ahead = is_ahead
            self.running.append(lane)

    @rule(level=st.integers(-1, 1), number=st.integers(1, 3), cores=st.integers(1, 5), later_ns=st.integers(0, 10**8))
    def ask(self, level, number, cores, later_ns):
        self.now_ns += later_ns
        self.note(self.queue.ask(Waiting(ModelPriority(level, number), cores), self.now_ns))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), later_ns=st.integers(0, 10**8))
    def give_back(self, data, later_ns):
        self.now_ns += later_ns
        lane = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.note(self.queue.give_back(lane, self.now_ns, asks_again=data.draw(st.booleans())))

    @precondition(lambda self: self.queue.waiting)
    @rule(data=st.data())
    def give_up(self, data):
        lane = data.draw(st.sampled_from(self.queue.waiting))
        self.note(self.queue.give_up(lane, self.now_ns))

    @invariant()
    def cores_add_up(self):
        if hasattr(self, "queue"):
            taken = sum(self.queue.needed(lane) for lane in self.running)
            assert taken + self.queue.free_cores == self.queue.cores
            assert self.queue.free_cores >= 0

    @invariant()
    def somebody_runs_if_anybody_waits(self):
        if hasattr(self, "queue") and self.queue.waiting:
            assert self.running


TestMachine = Machine.TestCase


def test_turns_are_needed_only_between_lanes_of_different_priority():
    turns = Turns(1, ManualClock())
    first, second = turns.join(NORMAL, 1), turns.join(NORMAL, 1)
    assert not first.is_needed
    urgent = turns.join(FIRST, 1)
    assert first.is_needed
    urgent.close()
    urgent.close()
    assert not second.is_needed


def test_a_lane_that_leaves_while_it_asks_keeps_no_core():
    turns = Turns(1, ManualClock())
    leaving, other = turns.join(FIRST, 1), turns.join(LAST, 1)
    leaving.take(Claim())
    leaving.give_back(has_next=True)
    assert turns.queue.free_cores == 0, "granted, and not taken yet"
    leaving.close()
    leaving.close()
    assert turns.queue.free_cores == 1
    other.take(Claim())
    other.give_back(has_next=False)


def test_a_lane_that_leaves_while_it_waits_is_never_chosen():
    turns = Turns(1, ManualClock())
    leaving, other = turns.join(LAST, 1), turns.join(FIRST, 1)
    leaving.take(Claim())
    leaving.give_back(has_next=True)
    leaving.take(Claim())
    turns.queue.ask(other, 0)
    leaving.give_back(has_next=True)
    leaving.close()
    assert not turns.queue.waiting


def test_no_threads_of_their_own_means_all_cores():
    turns = Turns(3, ManualClock())
    assert turns.join(NORMAL, 0).cores == 3
    with pytest.raises(InvariantError):
        Turns(0, ManualClock())


@given(st.lists(st.builds(ModelPriority, st.integers(-1, 1), st.integers(1, 9)), min_size=2, max_size=2))
def test_a_device_that_arbitrates_itself_never_turns_the_order_round(pair):
    urgencies = list(StreamPriority)
    first, second = sorted(pair)
    assert urgencies.index(first.of_device_stream) >= urgencies.index(second.of_device_stream)


def test_a_model_that_says_nothing_is_normal():
    assert NORMAL.of_device_stream is StreamPriority.NORMAL
    assert FIRST.of_device_stream is StreamPriority.HIGH
    assert {SECOND.of_device_stream, LAST.of_device_stream} == {StreamPriority.LOW}

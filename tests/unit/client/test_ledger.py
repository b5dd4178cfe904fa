"""Every frame given to the ledger comes out as exactly one result, in order, and memory stays bounded."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from forebay.client.ledger import PUSHED_OUT, SKIPPED, SPARE_FRAMES, Ledger, Offer
from forebay.client.result import Result, Status


def latest(queue_frames=1):
    return Ledger(queue_frames=queue_frames, drops_oldest=True, resends=False)


def every(queue_frames=1, max_sends=3):
    return Ledger(queue_frames=queue_frames, drops_oldest=False, resends=True, max_sends=max_sends)


def offer(ledger, count=1):
    return [ledger.offer(f"frame {ledger.next_seq}".encode(), capture_ns=0) for _ in range(count)]


def send(ledger, count=1, window=8, **keywords):
    return [ledger.next_to_send(window, now_ns=0, **keywords) for _ in range(count)]


def answer(ledger, *seqs):
    return [ledger.answered(Result(seq, Status.OK)) for seq in seqs]


def taken(ledger):
    results = []
    while (result := ledger.take()) is not None:
        results.append((result.seq, result.status))
    return results


def test_answered_frame_is_taken_once():
    ledger = latest()
    offer(ledger)
    send(ledger)
    answer(ledger, 1)
    assert taken(ledger) == [(1, Status.OK)]
    assert ledger.is_empty


def test_full_queue_pushes_the_oldest_frame_out():
    ledger = latest()
    offer(ledger, 3)
    assert send(ledger) == [b"frame 3"]
    assert taken(ledger) == [(1, Status.NOT_SENT), (2, Status.NOT_SENT)]


def test_spared_frames_are_not_pushed_out():
    ledger = latest()
    offer(ledger)
    ledger.spare()
    offer(ledger, SPARE_FRAMES)
    assert taken(ledger) == []
    assert send(ledger, 2) == [b"frame 1", b"frame 2"]


def test_frames_are_spared_once_and_then_only_the_newest_is_kept():
    ledger = latest()
    offer(ledger)
    ledger.spare()
    offer(ledger, SPARE_FRAMES + 1)
    newest = SPARE_FRAMES + 2
    assert taken(ledger) == [(seq, Status.NOT_SENT) for seq in range(1, newest)]
    assert send(ledger, 2) == [f"frame {newest}".encode(), None]
    offer(ledger, 2)
    assert taken(ledger) == []
    assert ledger.statistics().by_status == {Status.NOT_SENT: newest}


def test_frames_are_spared_no_longer_once_the_queue_has_room_again():
    ledger = latest()
    offer(ledger)
    ledger.spare()
    offer(ledger)
    assert send(ledger, 2) == [b"frame 1", b"frame 2"]
    offer(ledger, 3)
    assert send(ledger, 2) == [b"frame 5", None]


def test_blocking_queue_refuses_a_frame_when_full():
    ledger = every()
    assert offer(ledger, 2) == [Offer.QUEUED, Offer.FULL]
    assert ledger.next_seq == 2


def test_frame_that_was_pushed_out_waits_for_its_turn():
    ledger = latest()
    offer(ledger)
    send(ledger)
    offer(ledger, 2)
    assert taken(ledger) == []
    answer(ledger, 1)
    assert taken(ledger) == [(1, Status.OK), (2, Status.NOT_SENT)]


def test_frames_pushed_out_while_nothing_moves_take_one_entry():
    ledger = latest()
    offer(ledger)
    send(ledger)
    offer(ledger, 10_000)
    assert ledger.entries() == 3
    assert ledger.statistics().by_status == {Status.NOT_SENT: 9_999}


def test_window_bounds_frames_in_flight():
    ledger = every(queue_frames=3)
    offer(ledger, 3)
    assert send(ledger, 3, window=2) == [b"frame 1", b"frame 2", None]


def test_result_that_nobody_takes_keeps_its_place_in_the_window():
    ledger = every(queue_frames=2)
    offer(ledger, 2)
    send(ledger, 1, window=1)
    answer(ledger, 1)
    assert send(ledger, 1, window=1) == [None]
    ledger.take()
    assert send(ledger, 1, window=1) == [b"frame 2"]


def test_results_that_nobody_takes_do_not_hold_up_a_stream_that_is_finishing():
    ledger = every(queue_frames=2)
    offer(ledger, 2)
    send(ledger, 1, window=1)
    answer(ledger, 1)
    assert send(ledger, 1, window=1, is_finishing=True) == [b"frame 2"]


def test_broken_call_leaves_frames_of_a_live_camera_unanswered():
    ledger = latest(queue_frames=2)
    offer(ledger, 2)
    send(ledger)
    ledger.lose("broken")
    assert send(ledger) == [b"frame 2"]
    answer(ledger, 2)
    assert taken(ledger) == [(1, Status.UNANSWERED), (2, Status.OK)]


def test_broken_call_sends_frames_again_under_their_old_seq():
    ledger = every(queue_frames=3)
    offer(ledger, 3)
    send(ledger, 2)
    ledger.lose("broken")
    assert ledger.resume_from == 1
    assert send(ledger, 3) == [b"frame 1", b"frame 2", b"frame 3"]
    assert ledger.statistics().resent == 2


def test_frame_is_not_sent_again_for_ever():
    ledger = every(max_sends=2)
    offer(ledger)
    for _ in range(2):
        send(ledger)
        ledger.lose("broken")
    assert taken(ledger) == [(1, Status.UNANSWERED)]


def test_answer_that_overtakes_leaves_the_frames_before_it_unanswered():
    ledger = every(queue_frames=2)
    offer(ledger, 2)
    send(ledger, 2)
    answer(ledger, 2)
    first, second = ledger.take(), ledger.take()
    assert (first.status, first.message) == (Status.UNANSWERED, SKIPPED)
    assert second.status is Status.OK
    assert ledger.statistics().out_of_order == 1


def test_second_answer_and_answer_for_no_frame_of_ours_are_counted_and_ignored():
    ledger = every()
    offer(ledger)
    send(ledger)
    assert answer(ledger, 1, 1, 77) == [True, False, False]
    assert taken(ledger) == [(1, Status.OK)]
    assert ledger.statistics().out_of_order == 2


def test_giving_up_ends_every_frame_in_order():
    ledger = every(queue_frames=3)
    offer(ledger, 3)
    send(ledger)
    ledger.give_up("closed")
    assert taken(ledger) == [(1, Status.UNANSWERED), (2, Status.NOT_SENT), (3, Status.NOT_SENT)]
    assert ledger.is_empty


def test_giving_up_knows_frames_that_waited_to_be_sent_again():
    ledger = every(queue_frames=2)
    offer(ledger, 2)
    send(ledger)
    ledger.lose("broken")
    ledger.give_up("closed")
    assert taken(ledger) == [(1, Status.UNANSWERED), (2, Status.NOT_SENT)]


def test_live_frames_are_let_go_as_soon_as_they_are_sent():
    ledger = latest()
    offer(ledger)
    send(ledger)
    assert ledger.find(1).message is None


def test_overdue_answer_lets_only_one_frame_follow():
    ledger = latest(queue_frames=3)
    offer(ledger, 3)
    assert ledger.next_to_send(8, now_ns=0, patience_ns=100) == b"frame 1"
    assert ledger.next_to_send(8, now_ns=200, patience_ns=100) == b"frame 2"
    assert ledger.next_to_send(8, now_ns=200, patience_ns=100) is None
    answer(ledger, 1)
    assert ledger.next_to_send(8, now_ns=250, patience_ns=100) == b"frame 3"


def test_answers_in_time_leave_the_window_open():
    ledger = latest(queue_frames=3)
    offer(ledger, 3)
    assert [ledger.next_to_send(8, now_ns=now, patience_ns=100) for now in (0, 50, 100)] == [
        b"frame 1",
        b"frame 2",
        b"frame 3",
    ]


def test_stream_that_must_deliver_everything_is_patient():
    ledger = every(queue_frames=3)
    offer(ledger, 3)
    assert None not in [ledger.next_to_send(8, now_ns=now, patience_ns=100) for now in (0, 500, 900)]


def test_dropping_and_resending_exclude_each_other():
    with pytest.raises(ValueError, match="resend needs the policy 'block'"):
        Ledger(queue_frames=1, drops_oldest=True, resends=True)


def test_queue_needs_room_for_one_frame():
    with pytest.raises(ValueError, match="at least 1"):
        latest(queue_frames=0)


class LedgerMachine(RuleBasedStateMachine):
    """Anything a user, a server and a network can do, in any order."""

    @initialize(
        drops_oldest=st.booleans(), resends=st.booleans(), queue_frames=st.integers(1, 3), window=st.integers(1, 4)
    )
    def start(self, drops_oldest, resends, queue_frames, window):
        self.queue_frames, self.window = queue_frames, window
        self.ledger = Ledger(
            queue_frames=queue_frames, drops_oldest=drops_oldest, resends=resends and not drops_oldest, max_sends=2
        )
        self.drops_oldest = drops_oldest
        self.offered = 0
        self.in_flight = []  # seqs, as the server sees them
        self.answered = set()
        self.taken = []
        self.is_over = self.has_spared = False

    @precondition(lambda self: not self.is_over)
    @rule()
    def offer(self):
        outcome = self.ledger.offer(str(self.ledger.next_seq).encode(), capture_ns=0)
        self.offered += outcome is Offer.QUEUED
        assert outcome is Offer.QUEUED or not self.drops_oldest

    @rule()
    def send(self):
        message = self.ledger.next_to_send(self.window, now_ns=0)
        if message is not None:
            assert not self.in_flight or int(message) > self.in_flight[-1]
            self.in_flight.append(int(message))

    @precondition(lambda self: self.in_flight)
    @rule(overtaken=st.integers(0, 2))
    def answer(self, overtaken):
        index = min(overtaken, len(self.in_flight) - 1)
        seq = self.in_flight[index]
        del self.in_flight[: index + 1]
        assert self.ledger.answered(Result(seq, Status.OK))
        self.answered.add(seq)

    @rule(seq=st.integers(1, 50))
    def answer_nonsense(self, seq):
        if seq not in self.in_flight:
            assert not self.ledger.answered(Result(seq, Status.OK))

    @rule()
    def spare(self):
        self.ledger.spare()
        self.has_spared = True

    @rule()
    def lose(self):
        self.ledger.lose("broken")
        self.in_flight.clear()

    @rule()
    def give_up(self):
        self.ledger.give_up("closed")
        self.in_flight.clear()
        self.is_over = True
        assert self.ledger.is_settled

    @rule()
    def take(self):
        result = self.ledger.take()
        if result is not None:
            assert (result.seq in self.answered) == (result.status is Status.OK)
            self.taken.append(result.seq)

    @invariant()
    def results_come_in_order_without_gaps(self):
        assert self.taken == list(range(1, len(self.taken) + 1))

    @invariant()
    def memory_is_bounded(self):
        spared = SPARE_FRAMES if self.has_spared else 0
        assert self.ledger.entries() <= 2 * (self.window + self.queue_frames) + 1 + spared
        assert len(self.in_flight) <= self.window

    @invariant()
    def every_frame_is_in_exactly_one_place(self):
        now = self.ledger.statistics()
        assert now.offered == self.offered == now.waiting + now.in_flight + sum(now.by_status.values())
        assert now.ready == sum(now.by_status.values()) - len(self.taken)

    def teardown(self):
        self.ledger.give_up("closed")
        while (result := self.ledger.take()) is not None:
            self.taken.append(result.seq)
        assert self.taken == list(range(1, self.offered + 1))
        assert self.ledger.is_empty


LedgerMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLedgerMachine = LedgerMachine.TestCase


def test_words_for_frames_that_never_left_are_clear():
    ledger = latest()
    offer(ledger, 2)
    assert ledger.take().message == PUSHED_OUT

"""A channel keeps order, loses nothing, wakes its waiters, and ends cleanly."""

import threading
from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from forebay_server.service.channel import Channel, ChannelClosedError
from forebay_server.service.errors import InvariantError
from tests.support.clock import ManualClock
from tests.support.guard import HANG_GUARD_S


def receive_all(channel, until_ns):
    """Wait for something and take everything: as a receiver does."""
    channel.wait(until_ns)
    return channel.take_all()


class ChannelRules(RuleBasedStateMachine):
    """One thread, so that nothing ever has to wait: against a deque."""

    @initialize(capacity=st.integers(1, 4))
    def create(self, capacity):
        self.clock = ManualClock()
        self.channel = Channel("test", capacity, self.clock)
        self.model = deque()
        self.capacity = capacity
        self.is_closed = False
        self.sent = 0

    def sent_one(self):
        self.sent += 1
        self.model.append(self.sent)

    @precondition(lambda self: len(self.model) < self.capacity and not self.is_closed)
    @rule()
    def send(self):
        self.channel.send_now(self.sent + 1)
        self.sent_one()

    @precondition(lambda self: not self.is_closed)
    @rule(count=st.integers(0, 4))
    def send_all_now(self, count):
        items = list(range(self.sent + 1, self.sent + count + 1))
        if len(self.model) + count > self.capacity:
            with pytest.raises(InvariantError):
                self.channel.send_all_now(items)
        else:
            self.channel.send_all_now(items)
            for _ in items:
                self.sent_one()

    @precondition(lambda self: len(self.model) == self.capacity and not self.is_closed)
    @rule()
    def send_now_to_a_full_channel_is_our_bug(self):
        with pytest.raises(InvariantError):
            self.channel.send_now(-1)

    @precondition(lambda self: self.is_closed)
    @rule()
    def send_after_close(self):
        with pytest.raises(ChannelClosedError):
            self.channel.send_now(-1)

    @precondition(lambda self: self.model)
    @rule()
    def receive(self):
        assert self.channel.receive() == self.model.popleft()

    @precondition(lambda self: self.model)
    @rule(until_ns=st.none() | st.integers(-5, 5))
    def receive_all(self, until_ns):
        until_ns = None if until_ns is None else self.clock.now_ns() + until_ns
        assert receive_all(self.channel, until_ns) == list(self.model)
        self.model.clear()

    @precondition(lambda self: not self.model and not self.is_closed)
    @rule(past_ns=st.integers(0, 5))
    def receive_all_of_nothing_until_an_instant_that_has_come(self, past_ns):
        assert receive_all(self.channel, self.clock.now_ns() - past_ns) == []

    @precondition(lambda self: not self.model and self.is_closed)
    @rule()
    def receive_from_a_closed_and_empty_channel(self):
        with pytest.raises(ChannelClosedError):
            self.channel.receive()
        with pytest.raises(ChannelClosedError):
            receive_all(self.channel, 0)

    @rule()
    def close(self):
        self.channel.close()
        self.is_closed = True

    @invariant()
    def the_depth_is_right(self):
        assert self.channel.depth == len(self.model)
        assert self.channel.is_empty == (not self.model)


ChannelRules.TestCase.settings = settings(stateful_step_count=30)
TestChannelRules = ChannelRules.TestCase


def run(*functions):
    """Run each function in a separate thread to its end."""
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG_GUARD_S)
        assert not thread.is_alive(), "a thread hangs in the channel"


def receive_until_closed(channel, received, *, in_bulk):
    try:
        while True:
            if in_bulk:
                received.extend(receive_all(channel, None))
            else:
                received.append(channel.receive())
    except ChannelClosedError:
        pass


@pytest.mark.parametrize("in_bulk", [False, True], ids=["receive", "receive_all"])
def test_nothing_is_lost_and_each_sender_keeps_its_order(in_bulk):
    channel = Channel("test", 600, ManualClock())
    received: list[tuple[int, int]] = []
    left = [3]
    lock = threading.Lock()

    def send(sender):
        for number in range(200):
            channel.send_now((sender, number))
        with lock:
            left[0] -= 1
            if not left[0]:
                channel.close()

    run(*(lambda s=s: send(s) for s in range(3)), lambda: receive_until_closed(channel, received, in_bulk=in_bulk))
    assert len(received) == 600
    for sender in range(3):
        assert [number for s, number in received if s == sender] == list(range(200))
    assert channel.depth == 0


def test_close_wakes_a_receiver_that_waits_for_an_item():
    channel = Channel("test", 1, ManualClock())
    received = []
    thread = threading.Thread(target=receive_until_closed, args=(channel, received), kwargs={"in_bulk": True})
    thread.start()
    channel.close()
    thread.join(HANG_GUARD_S)
    assert not thread.is_alive()
    assert received == []


def test_a_receiver_leaves_exactly_at_its_instant():
    clock = ManualClock()
    channel = Channel("test", 1, clock)
    until_ns = clock.now_ns() + 1_000
    left_at = []
    thread = threading.Thread(target=lambda: left_at.append((receive_all(channel, until_ns), clock.now_ns())))
    thread.start()
    clock.wait_for_sleeper(until_ns)
    clock.advance(999)
    clock.wait_for_sleeper(until_ns)
    assert not left_at
    clock.advance(1)
    thread.join(HANG_GUARD_S)
    assert left_at == [([], until_ns)]


def test_an_item_wakes_a_receiver_before_its_instant():
    clock = ManualClock()
    channel = Channel("test", 1, clock)
    until_ns = clock.now_ns() + 1_000
    received = []
    thread = threading.Thread(target=lambda: received.extend(receive_all(channel, until_ns)))
    thread.start()
    clock.wait_for_sleeper(until_ns)
    channel.send_now("item")
    thread.join(HANG_GUARD_S)
    assert received == ["item"]


def test_a_channel_without_a_place_is_refused():
    with pytest.raises(ValueError, match="capacity"):
        Channel("test", 0, ManualClock())


def test_a_channel_sized_too_small_says_so_and_keeps_what_it_has():
    channel = Channel("former-m", 1, ManualClock())
    channel.send_now("first")
    with pytest.raises(InvariantError, match="former-m is full at 1"):
        channel.send_now("second")
    assert receive_all(channel, None) == ["first"]


def test_what_is_sent_unseen_wakes_nobody_and_is_received_in_its_place():
    clock = ManualClock()
    channel = Channel("test", 3, clock)
    woken = threading.Event()

    def wait():
        channel.wait(clock.now_ns() + 5)
        woken.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    clock.wait_for_sleeper(clock.now_ns() + 5)
    channel.send_now(1, is_seen=False)
    clock.wait_for_sleeper(clock.now_ns() + 5)  # the receiver still waits for the time
    assert not woken.is_set()
    channel.send_now(2)
    waiting.join(HANG_GUARD_S)
    assert woken.is_set()
    assert channel.take_all() == [1, 2]
    assert channel.take_all() == []


def test_a_receiver_that_is_woken_looks_again_once():
    clock = ManualClock()
    channel = Channel("test", 1, clock)
    channel.wake()
    channel.wait(None)
    channel.wait(clock.now_ns())  # the wake-up is used: the receiver waits for the time, which has come
    channel.close()
    with pytest.raises(ChannelClosedError):
        channel.wait(None)


def test_unseen_items_too_are_refused_by_a_full_or_closed_channel():
    channel = Channel("test", 1, ManualClock())
    channel.send_now(1, is_seen=False)
    with pytest.raises(InvariantError):
        channel.send_now(2, is_seen=False)
    channel.close()
    with pytest.raises(ChannelClosedError):
        channel.send_now(2, is_seen=False)

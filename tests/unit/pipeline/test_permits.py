"""Permits are shared over streams, also if different threads take them and give them back."""

import threading

import pytest

from forebay_server.service.errors import OverloadedError
from forebay_server.service.pipeline.permits import Permits
from forebay_server.service.pipeline.shares import MEMORY_NS, Share
from tests.support.clock import ManualClock
from tests.support.guard import HANG_GUARD_S


def take_all(permits, share):
    taken = 0
    while True:
        try:
            permits.take(share)
        except OverloadedError:
            return taken
        taken += 1


def test_a_permit_that_is_given_back_goes_to_the_stream_that_has_less():
    permits, greedy, camera = Permits(4, ManualClock()), Share(), Share()
    assert take_all(permits, greedy) == 4
    assert take_all(permits, camera) == 0
    permits.give_back(greedy)
    assert permits.taken_count == 3
    assert take_all(permits, greedy) == 0
    assert take_all(permits, camera) == 1


def test_a_stream_that_has_left_is_promised_nothing():
    permits, greedy, camera = Permits(4, ManualClock()), Share(), Share()
    permits.give_back(permits.take(camera))
    assert take_all(permits, greedy) == 3
    permits.leave(camera)
    assert take_all(permits, greedy) == 1


def test_a_silent_stream_is_forgotten_by_the_clock():
    clock = ManualClock()
    permits, greedy, camera = Permits(4, clock), Share(), Share()
    permits.give_back(permits.take(camera))
    assert take_all(permits, greedy) == 3
    for _ in range(2):
        clock.advance(MEMORY_NS)
        permits.give_back(greedy)
        take_all(permits, greedy)
    assert permits.taken_count == 4


def test_a_refusal_says_what_is_wrong_and_when_to_come_back():
    permits = Permits(1, ManualClock())
    share = permits.take()
    with pytest.raises(OverloadedError, match="send fewer or slower") as refused:
        permits.take()
    assert refused.value.retry_after_ms > 0
    permits.give_back(share)
    permits.take()


def take_and_give_back(permits, shares, overdrawn):
    held = []
    for number in range(500):
        try:
            held.append(permits.take(shares[number % 3 == 0]))
        except OverloadedError:
            while held:
                permits.give_back(held.pop())
        if permits.taken_count > permits.count:
            overdrawn.append(number)
    while held:
        permits.give_back(held.pop())


def test_threads_take_and_give_back_without_losing_any():
    permits, shares, overdrawn = Permits(5, ManualClock()), [Share() for _ in range(4)], []
    pairs = [(shares[index % 4], shares[(index + 1) % 4]) for index in range(6)]
    threads = [threading.Thread(target=take_and_give_back, args=(permits, pair, overdrawn)) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG_GUARD_S)
        assert not thread.is_alive()
    assert overdrawn == []
    assert permits.taken_count == 0
    for share in shares:
        permits.leave(share)
    assert take_all(permits, None) == 5
    assert all(share.in_use == 0 for share in shares)

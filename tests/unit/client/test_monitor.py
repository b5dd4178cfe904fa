"""Whom a change wakes, also when an interrupt comes in between."""

import threading

import pytest

from forebay.client.monitor import Monitor

LOCK = threading.Lock


class InterruptedLock:
    """A lock whose first release a KeyboardInterrupt comes before or behind."""

    def __init__(self, instant):
        self._lock = LOCK()
        self._instant = instant
        self.acquire = self._lock.acquire
        self.locked = self._lock.locked

    def release(self):
        instant, self._instant = self._instant, None
        if instant == "before":
            raise KeyboardInterrupt
        self._lock.release()
        if instant == "behind":
            raise KeyboardInterrupt


@pytest.mark.parametrize("instant", ["before", "behind"])
def test_a_change_after_one_that_was_interrupted_wakes_all_who_wait(monkeypatch, instant):
    monitor = Monitor()
    monkeypatch.setattr("forebay.client.monitor.threading.Lock", lambda: InterruptedLock(instant))
    with monitor.lock:
        interrupted = monitor.subscribe()
    monkeypatch.undo()
    with monitor.lock:
        others = [monitor.subscribe() for _ in range(4)]
    with pytest.raises(KeyboardInterrupt), monitor.lock:
        monitor.notify_all()
    with monitor.lock:
        monitor.notify_all()
    assert all(waiter.acquire(blocking=False) for waiter in [interrupted, *others])


def test_a_change_wakes_all_who_wait_once_and_nobody_who_stopped_waiting():
    monitor = Monitor()
    with monitor.lock:
        first, second, gone = (monitor.subscribe() for _ in range(3))
    monitor.unsubscribe(gone)
    for is_woken in (True, False):
        with monitor.lock:
            monitor.notify_all()
        assert [waiter.acquire(blocking=False) for waiter in (first, second)] == [is_woken] * 2
    assert not gone.acquire(blocking=False)

"""The time limit of a load, and that no caller waits for a hanging thread."""

import threading

import pytest

from forebay_server.service.models.attempts import Attempts, LoadAbandonedError, Opening
from tests.support.clock import ManualClock
from tests.support.guard import HANG_GUARD_S

SECOND_NS = 1_000_000_000


class Held:
    """Work that hangs until the test ends it; discarded results are counted."""

    def __init__(self, error=None):
        self.may_end = threading.Event()
        self.discarded = []
        self._error = error

    def __call__(self):
        assert self.may_end.wait(HANG_GUARD_S)
        if self._error is not None:
            raise self._error
        return "opened"


@pytest.fixture
def clock():
    return ManualClock(SECOND_NS)


@pytest.fixture
def attempts(clock):
    return Attempts(5.0, clock)


def opening(attempt, work):
    attempt.restart()
    thread = Opening(attempt, work, work.discarded.append)
    thread.start()
    return thread


def test_what_was_opened_is_handed_over(attempts):
    work = Held()
    work.may_end.set()
    assert opening(attempts.begin("m"), work).wait() == "opened"
    assert work.discarded == []


def test_what_opening_raises_is_raised_where_it_is_waited_for(attempts):
    work = Held(KeyError("m"))
    work.may_end.set()
    with pytest.raises(KeyError):
        opening(attempts.begin("m"), work).wait()


def test_nobody_waits_longer_than_the_time_and_what_comes_late_is_closed_again(attempts, clock):
    work = Held()
    thread = opening(attempts.begin("m"), work)
    clock.advance(5 * SECOND_NS)
    with pytest.raises(LoadAbandonedError, match="m: not loaded within 5 s: "):
        thread.wait()
    work.may_end.set()
    thread.join(HANG_GUARD_S)
    assert work.discarded == ["opened"]


def test_each_part_of_a_load_has_the_whole_time(attempts, clock):
    attempt = attempts.begin("m")
    attempt.restart()
    clock.advance(4 * SECOND_NS)
    attempt.restart()
    clock.advance(4 * SECOND_NS)
    attempt.check()
    clock.advance(SECOND_NS)
    with pytest.raises(LoadAbandonedError):
        attempt.check()


def test_a_cancelled_attempt_ends_the_wait_with_the_first_reason(attempts):
    attempt, work = attempts.begin("m"), Held()
    thread = opening(attempt, work)
    canceller = threading.Thread(target=lambda: attempts.cancel("m", "first"))
    canceller.start()
    with pytest.raises(LoadAbandonedError, match="m: first"):
        thread.wait()
    canceller.join(HANG_GUARD_S)
    attempt.cancel("second")
    with pytest.raises(LoadAbandonedError, match="m: first"):
        attempt.restart()
    work.may_end.set()
    thread.join(HANG_GUARD_S)


def test_every_attempt_at_a_model_is_cancelled_and_no_other(attempts):
    first, second, other = (attempts.begin(name) for name in ("m", "m", "other"))
    assert attempts.cancel("m", "unloaded")
    for attempt in (first, second):
        with pytest.raises(LoadAbandonedError, match="m: unloaded"):
            attempt.restart()
    other.restart()
    attempts.end(first)
    attempts.end(second)
    assert not attempts.cancel("m", "unloaded")


def test_after_a_stop_nothing_begins(attempts):
    before = attempts.begin("m")
    attempts.stop("the server is shutting down")
    for attempt in (before, attempts.begin("n")):
        with pytest.raises(LoadAbandonedError, match="shutting down"):
            attempt.restart()

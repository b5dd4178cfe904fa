"""Supervision: what is started anew, what is not, how often, and what happens to signals."""

import signal

import pytest

from service.supervisor import GAVE_UP_CODE, MAX_RESTARTS, Supervisor
from tests.support.clock import ManualClock

KILLED = -signal.SIGKILL
MINUTE_NS = 60_000_000_000


class Children:
    """Children that end as `codes` say, in turn; `on_wait` runs while one of them lives."""

    def __init__(self, codes, on_wait=lambda: None):
        self.codes = list(codes)
        self.started = 0
        self.signals = []
        self._on_wait = on_wait

    def start(self):
        self.started += 1
        return self

    def wait(self):
        self._on_wait()
        return self.codes.pop(0)

    def send_signal(self, sig):
        self.signals.append(sig)


def supervise(children, clock=None):
    said = []
    code = Supervisor(children.start, clock or ManualClock(), said.append).run()
    return code, said


@pytest.mark.parametrize("failure", [70, KILLED, -signal.SIGSEGV])
def test_a_server_that_failed_is_started_anew(failure):
    children = Children([failure, failure, 0])
    code, said = supervise(children)
    assert (code, children.started, len(said)) == (0, 3, 2)


@pytest.mark.parametrize("code", [0, 1, 2, 65, 69])
def test_every_other_end_is_final(code):
    children = Children([code])
    assert supervise(children) == (code, [])


def test_more_than_five_failures_in_a_minute_end_it_with_a_word():
    children = Children([70] * 10)
    code, said = supervise(children)
    assert (code, children.started) == (GAVE_UP_CODE, MAX_RESTARTS + 1)
    assert "stays down" in said[-1]


def test_failures_that_are_a_minute_old_do_not_count():
    clock = ManualClock()
    children = Children([70] * 20 + [0], on_wait=lambda: clock.advance(MINUTE_NS // 4))
    assert supervise(children, clock)[0] == 0


@pytest.mark.parametrize(("end", "code"), [(0, 0), (70, 70), (KILLED, 137)])
def test_after_a_signal_the_end_is_final_however_it_comes(end, code):
    children = Children([end])
    supervisor = Supervisor(children.start, ManualClock(), pytest.fail)
    children._on_wait = lambda: supervisor.stop(signal.SIGTERM)
    assert supervisor.run() == code
    assert children.signals == [signal.SIGTERM]


def test_a_signal_between_two_children_reaches_the_second():
    children = Children([70, 0])
    supervisor = Supervisor(children.start, ManualClock(), lambda _: None)
    supervisor._say = lambda _: supervisor.stop(signal.SIGINT)
    assert supervisor.run() == 0
    assert children.signals[-1] == signal.SIGINT


def test_a_signal_that_does_not_end_the_server_is_passed_on_and_supervision_goes_on():
    children = Children([KILLED, 0])
    supervisor = Supervisor(children.start, ManualClock(), lambda _: None)
    supervisor.tell(signal.SIGUSR1)  # nobody is there yet
    children._on_wait = lambda: supervisor.tell(signal.SIGUSR2)
    assert supervisor.run() == 0
    assert children.started == 2
    assert children.signals == [signal.SIGUSR2] * 2

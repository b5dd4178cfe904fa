"""Supervision: restarted and final ends, the rate of restarts, and the treatment of signals."""

import signal

import pytest

from forebay_server.service.supervisor import GAVE_UP_CODE, MAX_RESTARTS, Supervisor
from tests.support.clock import ManualClock

KILLED = -signal.SIGKILL
MINUTE_NS = 60_000_000_000


class Child:
    def __init__(self):
        self.signals = []

    def send_signal(self, sig):
        self.signals.append(sig)


class SupervisorHarness:
    """A supervisor whose children end as the test sets them."""

    def __init__(self):
        self.clock, self.said, self.children = ManualClock(), [], []
        self.supervisor = Supervisor(self.clock, self.said.append)

    def start(self):
        assert self.supervisor.wants_child
        self.children.append(Child())
        self.supervisor.add(self.children[-1])
        return self.children[-1]

    def live(self, codes, *, each_ns=0):
        """Start a child for each code, as long as one is wanted, and have it end with that code."""
        for code in codes:
            if not self.supervisor.wants_child:
                break
            self.start()
            self.clock.advance(each_ns)
            self.supervisor.on_end(code)
        return self.supervisor.exit_code


@pytest.mark.parametrize("failure", [70, KILLED, -signal.SIGSEGV])
def test_a_server_that_failed_is_started_anew(failure):
    harness = SupervisorHarness()
    assert harness.live([failure, failure, 0]) == 0
    assert (len(harness.children), len(harness.said)) == (3, 2)


@pytest.mark.parametrize("code", [0, 1, 2, 65, 69])
def test_every_other_end_is_final(code):
    harness = SupervisorHarness()
    assert harness.live([code]) == code
    assert harness.said == []
    assert not harness.supervisor.wants_child


def test_more_than_five_failures_in_a_minute_end_it_with_a_word():
    harness = SupervisorHarness()
    assert harness.live([70] * 10) == GAVE_UP_CODE
    assert len(harness.children) == MAX_RESTARTS + 1
    assert "stays down" in harness.said[-1]


def test_failures_that_are_a_minute_old_do_not_count():
    assert SupervisorHarness().live([70] * 20 + [0], each_ns=MINUTE_NS // 4) == 0


@pytest.mark.parametrize(("end", "code"), [(0, 0), (70, 70), (KILLED, 137)])
def test_after_a_signal_the_end_is_final_however_it_comes(end, code):
    harness = SupervisorHarness()
    child = harness.start()
    harness.supervisor.on_signal(signal.SIGTERM)
    harness.supervisor.on_end(end)
    assert harness.supervisor.exit_code == code
    assert child.signals == [signal.SIGTERM]
    assert harness.said == []


def test_a_signal_that_does_not_end_the_server_is_passed_on_and_supervision_goes_on():
    harness = SupervisorHarness()
    harness.supervisor.on_signal(signal.SIGUSR1)  # no process is there yet
    child = harness.start()
    harness.supervisor.on_signal(signal.SIGUSR2)
    harness.supervisor.on_end(KILLED)
    assert harness.supervisor.wants_child
    assert child.signals == [signal.SIGUSR2]

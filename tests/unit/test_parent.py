"""Signals that a parent passes on to its children, and its waits; the second with real children."""

import os
import signal
import subprocess
import sys

import pytest

from forebay_server.service.parent import END_LIMIT_NS, Parent, Waiting
from forebay_server.service.signals import ONE_REQUEST_NS, blocked
from tests.support.clock import ManualClock


class Child:
    def __init__(self):
        self.signals = []

    def send_signal(self, sig):
        self.signals.append(sig)


class Watcher(Parent):
    def __init__(self, clock):
        super().__init__(clock)
        self.child = Child()

    def children(self):
        return [self.child]


@pytest.fixture
def watched():
    clock = ManualClock()
    return Watcher(clock), clock


def test_what_comes_within_a_second_is_one_request_whatever_its_signal(watched):
    watcher, clock = watched
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        watcher.on_signal(number)
    clock.advance(ONE_REQUEST_NS - 1)
    watcher.on_signal(signal.SIGTERM)
    assert watcher.child.signals == [signal.SIGINT]
    assert watcher.kill_in_s() is None


def test_a_second_request_is_passed_on_and_who_does_not_end_then_is_killed(watched):
    watcher, clock = watched
    watcher.on_signal(signal.SIGTERM)
    clock.advance(ONE_REQUEST_NS)
    watcher.on_signal(signal.SIGINT)
    assert watcher.child.signals == [signal.SIGTERM, signal.SIGINT]
    assert watcher.kill_in_s() == END_LIMIT_NS / 1e9
    clock.advance(END_LIMIT_NS - 1)
    watcher.on_signal(signal.SIGINT)  # impatience gives no child more time
    assert watcher.kill_in_s() == 1e-9
    clock.advance(1)
    assert watcher.kill_in_s() is None
    assert watcher.child.signals[-1] == signal.SIGKILL


def test_an_end_that_was_not_asked_for_is_followed_by_a_request_that_counts(watched):
    watcher, _ = watched
    watcher.stop(signal.SIGTERM)  # one child has ended by itself
    watcher.on_signal(signal.SIGINT)
    assert watcher.child.signals == [signal.SIGTERM]


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_signals_that_end_nothing_are_passed_on_each_time(watched, number):
    watcher, _ = watched
    watcher.on_signal(number)
    watcher.on_signal(number)
    assert watcher.child.signals == [number] * 2
    assert not watcher.is_stopping


def python(program):
    """A child that runs `program`, as ours are started."""
    with blocked():
        return subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def wait_until_over(waiting):
    while not waiting.is_over:
        waiting.wait()


def test_every_one_of_many_signals_is_seen_while_nothing_else_happens():
    """The parent waits for a child that does nothing, and each signal follows closely on another."""
    seen, ends = [], []
    with Waiting(seen.append) as waiting, python("import sys; sys.stdin.read()") as child:
        waiting.add(child, ends.append)
        for count in range(1, 201):
            os.kill(os.getpid(), signal.SIGUSR1)
            os.kill(os.getpid(), signal.SIGTERM)
            while seen.count(signal.SIGTERM) < count:
                waiting.wait()
        child.kill()
        wait_until_over(waiting)
    assert seen.count(signal.SIGUSR1) == 200
    assert ends == [-signal.SIGKILL]


def test_what_a_child_writes_comes_in_lines_and_before_its_end():
    told = []
    program = "import sys; print('one'); print('tw', end='', flush=True); print('o'); print('rest', end='')"
    with Waiting(lambda _: None) as waiting, python(program) as child:
        waiting.add(child, told.append, told.append)
        wait_until_over(waiting)
    assert told == ["one", "two", 0]


def test_a_signal_that_comes_before_a_child_listens_waits_for_it():
    program = """
import select
from forebay_server.service.signals import SignalInbox
print("not yet", flush=True)
input()
with SignalInbox() as inbox:
    select.select([inbox], [], [])
    print(*inbox.read())
"""
    told = []
    with Waiting(lambda _: None) as waiting, python(program) as child:
        waiting.add(child, told.append, told.append)
        while not told:
            waiting.wait()
        child.send_signal(signal.SIGHUP)
        child.stdin.write(b"\n")
        child.stdin.close()
        wait_until_over(waiting)
    assert told == ["not yet", str(int(signal.SIGHUP)), 0]

"""The one line of a group whose processes cannot be started, and fork servers that end."""

import errno
import os
import shutil

import psutil
import pytest

from forebay_server.service.group.restarts import LONGEST_PAUSE_NS, MOST_RESTARTS
from forebay_server.service.group.starts import REMEDIES, GroupError, Starts
from forebay_server.service.parent import Waiting
from forebay_server.service.settings import load_settings
from tests.support.clock import ManualClock
from tests.support.guard import HANG_GUARD_S


@pytest.mark.parametrize("number", [*REMEDIES, errno.EPERM])
def test_a_process_that_cannot_be_started_is_named_with_a_remedy(number):
    error = GroupError.of_start(OSError(number, os.strerror(number)))
    expected = f"cannot start a process of the server: {os.strerror(number)}"
    remedy = REMEDIES.get(number)
    assert str(error) == (f"{expected}; {remedy}" if remedy else expected)


def test_a_lack_of_descriptors_says_which_limit_to_raise():
    assert "ulimit -n" in str(GroupError.of_start(OSError(errno.EMFILE, "Too many open files")))


class Rig:
    """Fork servers that are killed while they import, or write a line first. Their processes are real."""

    def __init__(self, waiting):
        self.said, self.problems, self.given_up = [], [], []
        self.clock = ManualClock()
        self.waiting = waiting
        self.starts = Starts(
            load_settings({}, None, {}).values,
            1,
            "127.0.0.1:1",
            [],
            os.environ,
            self.said.append,
            self.problems.append,
            self.given_up.append,
            self.clock,
        )

    def start(self):
        """Start a fork server, if it is due, and return it."""
        before = set(psutil.Process().children())
        self.starts.keep_fork_server(self.waiting)
        return next(iter(set(psutil.Process().children()) - before), None)

    def wait(self):
        while not self.waiting.is_over:
            self.waiting.wait(HANG_GUARD_S)


@pytest.fixture
def rig():
    with Waiting(lambda _: None) as waiting:
        rig = Rig(waiting)
        yield rig
        rig.starts.end_fork_server()
        rig.wait()


def test_a_fork_server_that_is_killed_while_it_imports_is_started_anew_until_it_is_too_often(rig):
    for index in range(MOST_RESTARTS):
        rig.start().kill()
        rig.wait()
        assert (len(rig.said), rig.problems, rig.given_up) == (index + 1, [], [])
        if index:
            assert rig.start() is None
        rig.clock.advance(round((rig.starts.pause_s() or 0) * 1e9))
    rig.start().kill()
    rig.wait()
    assert len(rig.given_up) == 1
    assert not rig.problems


def test_a_fork_server_that_cannot_start_is_a_problem_at_once(rig, monkeypatch):
    monkeypatch.setattr("sys.executable", shutil.which("false"))
    rig.start()
    rig.wait()
    assert len(rig.problems) == 1
    assert not rig.said


def test_a_fork_server_that_runs_asks_for_no_pause(rig):
    rig.start()
    rig.starts.put_off()
    rig.clock.advance(LONGEST_PAUSE_NS)
    assert rig.start() is None
    assert rig.starts.pause_s() is None

"""Several servers behind one port: their settings, their readiness, and the exit code. Without any process."""

import json
import os
import signal
import socket
import subprocess
import sys
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.service.parent import END_LIMIT_NS
from forebay_server.service.process_group import GroupError, ProcessGroup, reserved, settings_of_children
from forebay_server.service.settings import ServeSettings, load_settings, to_environment
from forebay_server.service.signals import ONE_REQUEST_NS
from forebay_server.service.worker_pool import default_workers
from tests.support.clock import ManualClock
from tests.support.guard import HANG_GUARD_S


class Child:
    def __init__(self, pid):
        self.pid = pid
        self.signals = []

    def send_signal(self, sig):
        self.signals.append(sig)


class GroupHarness:
    def __init__(self, size=3, *, added=None, **options):
        self.ready, self.passed, self.said = [], [], []
        self.clock = ManualClock()
        self.group = ProcessGroup(size, self.ready.append, self.passed.append, self.said.append, self.clock, **options)
        self.children = [Child(pid) for pid in range(size)]
        for child in self.children[: size if added is None else added]:
            self.group.add(child)

    def is_ready(self, index):
        self.group.on_line(index, json.dumps({"event": "ready", "pid": 100 + index}))

    @property
    def signals(self):
        return [child.signals for child in self.children]


def test_all_are_ready_when_the_last_one_is_and_that_is_said_once():
    harness = GroupHarness()
    for index in (2, 0, 2):
        harness.is_ready(index)
    assert not harness.ready
    harness.is_ready(1)
    assert [[line["pid"] for line in lines] for lines in harness.ready] == [[100, 101, 102]]
    harness.is_ready(1)  # restarted by its supervisor
    assert len(harness.ready) == 1
    assert [json.loads(line)["pid"] for line in harness.passed] == [101]


@pytest.mark.parametrize("line", ["", "hello", "[1]", "{", '{"event": "other"}', "null"])
def test_other_lines_are_passed_on(line):
    harness = GroupHarness()
    harness.group.on_line(0, line)
    assert harness.passed == [line]


@pytest.mark.parametrize(("code", "exit_code"), [(70, 70), (65, 65), (-signal.SIGKILL, 137)])
def test_one_that_ends_by_itself_ends_the_others_with_its_code(code, exit_code):
    harness = GroupHarness()
    harness.group.on_end(1, code)
    assert harness.signals == [[signal.SIGTERM], [], [signal.SIGTERM]]
    assert len(harness.said) == 1
    harness.group.on_end(0, 0)
    harness.group.on_end(2, -signal.SIGTERM)
    assert harness.group.exit_code == exit_code
    assert not harness.group.wanted


def test_a_signal_goes_to_all_and_their_ends_are_no_surprise():
    harness = GroupHarness()
    harness.group.on_signal(signal.SIGINT)
    for index in range(3):
        harness.group.on_end(index, 0)
    assert harness.signals == [[signal.SIGINT]] * 3
    assert (harness.group.exit_code, harness.said) == (0, [])


def test_a_signal_that_does_not_end_them_goes_to_all_that_run():
    harness = GroupHarness(added=2)
    harness.group.on_signal(signal.SIGUSR1)
    harness.group.add(harness.children[2])
    assert harness.signals == [[signal.SIGUSR1], [signal.SIGUSR1], []]
    assert not harness.group.is_stopping


def test_the_first_one_starts_alone_and_the_others_when_it_serves():
    harness = GroupHarness(added=0)
    assert list(harness.group.wanted) == [0]
    harness.group.add(harness.children[0])
    assert not harness.group.wanted
    harness.is_ready(0)
    assert list(harness.group.wanted) == [1, 2]
    for child in harness.children[1:]:
        harness.group.add(child)
    assert not harness.group.wanted


def test_after_a_request_to_stop_no_more_are_started():
    harness = GroupHarness(added=1)
    harness.group.on_signal(signal.SIGTERM)
    harness.is_ready(0)
    assert not harness.group.wanted
    harness.group.on_end(0, 0)
    assert not harness.group.wanted
    assert harness.said == []


def test_one_that_ends_before_it_serves_is_the_only_one():
    harness = GroupHarness(added=1)
    harness.group.on_end(0, 65)
    assert not harness.group.wanted
    assert harness.group.exit_code == 65


def test_each_has_an_admin_port_and_a_share_of_the_workers():
    settings = ServeSettings(processes=3, admin_address="127.0.0.1:9000", ready_file="ready.json")
    found = settings_of_children(settings, "127.0.0.1:8001")
    assert [own.admin_address for own in found] == ["127.0.0.1:9000", "127.0.0.1:9001", "127.0.0.1:9002"]
    assert {(own.processes, own.share_port, own.ready_file, own.address) for own in found} == {
        (1, True, None, "127.0.0.1:8001")
    }
    assert {own.worker_threads for own in found} == {max(1, default_workers() // 3)}
    free = settings_of_children(ServeSettings(processes=2, admin_address="127.0.0.1:0", worker_threads=5), "h:1")
    assert [(own.admin_address, own.worker_threads) for own in free] == [("127.0.0.1:0", 5)] * 2


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"uds": "s.sock"}, "unix socket"),
        ({"model_control_mode": "explicit"}, "use poll"),
        ({"processes": 65}, "64"),
        ({"admin_address": "127.0.0.1:65535"}, "take the ports up to 65536"),
        ({"admin_address": "127.0.0.1:8000"}, "from which on they are free"),
    ],
)
def test_what_does_not_go_together_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        ServeSettings(**{"processes": 2, **wrong})


@given(
    st.fixed_dictionaries(
        {"model_control_mode": st.just("explicit")},
        optional={
            "model_repository": st.lists(st.sampled_from(["/a", "/b c", "/d:e"]), max_size=2),
            "load_model": st.lists(st.text("abc,;*", min_size=1), max_size=2),
            "restricted_protocol": st.just(["health:a=b;c", "inference:k=[v"]),
            "cache_folder": st.sampled_from(["/cache", None]),
            "cpu_fallback": st.booleans(),
            "repository_poll_s": st.floats(0.1, 100),
            "permits": st.integers(1, 1000),
            "log_level": st.sampled_from(["debug", "error"]),
        },
    )
)
def test_a_child_that_is_told_by_its_environment_has_the_same_settings(values):
    settings = ServeSettings(**values)
    before = {"PATH": "/bin", "FOREBAY_PERMITS": "7", "FOREBAY_NVTX": "1", "forebay_log_level": "warning"}
    environment = to_environment(settings, before)
    with mock.patch.dict(os.environ, environment, clear=True):
        assert load_settings({}, None, os.environ).values == settings
    assert environment["PATH"] == "/bin"
    assert environment["FOREBAY_NVTX"] == "1"


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_port_that_somebody_uses_is_refused_even_if_they_would_share_it(is_shared):
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(is_shared))
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(GroupError, match="is it in use"), reserved(address):
            pass
    with pytest.raises(GroupError, match="Cannot assign requested address"), reserved("192.0.2.1:0"):
        pass


def test_a_held_port_is_for_those_who_share_it_and_not_for_another_group():
    with reserved("127.0.0.1:0") as address:
        host, port = address.split(":")
        assert int(port) > 0
        with pytest.raises(GroupError), reserved(address):
            pass
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            server.bind((host, int(port)))
            server.listen()
            with socket.create_connection((host, int(port)), timeout=5):
                server.accept()[0].close()


@pytest.mark.parametrize("are_supervised", [False, True])
def test_a_supervisor_has_time_to_kill_its_server_before_it_is_killed(are_supervised):
    """Otherwise a hanging server outlives all processes that could end it, and keeps the group's pipe open."""
    harness = GroupHarness(2, are_supervised=are_supervised)
    harness.group.on_signal(signal.SIGTERM)
    harness.clock.advance(ONE_REQUEST_NS)
    harness.group.on_signal(signal.SIGTERM)
    assert harness.group.kill_in_s() == END_LIMIT_NS * (1 + are_supervised) / 1e9


def test_a_server_process_that_cannot_be_started_ends_the_group():
    program = """
import errno, os, subprocess
from forebay_server.service.process_group import GroupError, run_group
from forebay_server.service.settings import ServeSettings

def no_process(*_, **__):
    raise BlockingIOError(errno.EAGAIN, "no more processes")

subprocess.Popen = no_process
try:
    run_group(ServeSettings(address="127.0.0.1:0", processes=2), [], {})
except GroupError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, text=True, timeout=HANG_GUARD_S
    )
    assert done.stdout == "cannot start a server process: no more processes\n"

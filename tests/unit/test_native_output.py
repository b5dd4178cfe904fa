"""Output of libraries past Python is logged within bounds, and a crash still reports its place."""

import json
import os
import signal
import subprocess
import sys

from forebay_server.service.native_output import MAX_LINES, WINDOW_NS, LineLimit
from tests.support.broken_output import broken
from tests.support.clock import ManualClock
from tests.support.guard import HANG_GUARD_S

BEGIN = """
import ctypes, os
from forebay_server.service.clock import MonotonicClock
from forebay_server.service.log import configure_logs
from forebay_server.service.log_sources import take_over
from forebay_server.service.native_output import take_descriptor
configure_logs("json")
take_over()
take_descriptor(MonotonicClock())
libc = ctypes.CDLL(None)
"""


def run(program, stderr=subprocess.PIPE):
    command = [sys.executable, "-c", BEGIN + program]
    return subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=stderr, text=True, timeout=HANG_GUARD_S)


def test_lines_are_put_together_of_what_is_read():
    limit = LineLimit(ManualClock())
    assert limit.take(b"be") == []
    assert limit.take(b"gun\n\nwhole\nbe") == ["begun", "whole"]
    assert limit.take(b"gun again\n") == ["begun again"]


def test_more_than_a_few_lines_in_a_window_are_only_counted():
    clock = ManualClock()
    limit = LineLimit(clock)
    assert limit.take(b"line\n" * (MAX_LINES + 1000) + b"be") == ["line"] * MAX_LINES
    assert limit.take(b"gun\n" * 10) == []
    assert (limit.left_out, limit.take_left_out()) == (1010, 0)
    clock.advance(WINDOW_NS)
    assert limit.take(b"next\n") == ["next"]
    assert (limit.take_left_out(), limit.take_left_out()) == (1010, 0)


def test_a_line_without_an_end_is_kept_within_bounds():
    limit = LineLimit(ManualClock())
    for _ in range(100):
        assert limit.take(b"-" * 65536) == []
    assert len(limit.take(b"\n")[0]) < 10_000


def test_native_lines_are_events_and_escaped():
    done = run(r"""libc.perror(b'\x1b[2J{"event": "forged"}'); os.write(2, b"\x9b\xffhalf a line\n")""")
    assert done.returncode == 0
    found = [json.loads(line) for line in done.stderr.splitlines()]
    assert [event["event"] for event in found] == ["a library prints"] * 2
    assert found[0]["detail"].startswith('\x1b[2J{"event": "forged"}: ')
    assert found[1]["detail"].endswith("half a line")


def test_native_lines_wait_for_no_reader():
    with broken("reader takes nothing") as descriptor:
        assert run(r"for _ in range(1000): libc.write(2, b'line\n' * 10_000, 50_000)", descriptor).returncode == 0


def test_who_holds_the_interpreters_lock_waits_for_no_reader():
    done = run(r"""
locking = ctypes.PyDLL(None)  # keeps the lock while it is in C, as gRPC and others do now and then
lines = b"line\n" * (1 << 20)
assert 0 < locking.write(2, lines, len(lines)) < len(lines)
""")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert {event["detail"] for event in events if event["event"] == "a library prints"} == {"line"}


def test_a_crash_says_where_it_was():
    done = run("libc.abort()")
    assert done.returncode == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in done.stderr
    assert 'File "<string>"' in done.stderr


def test_a_crash_waits_for_no_reader():
    with broken("reader takes nothing") as descriptor:
        assert run("libc.abort()", descriptor).returncode == -signal.SIGABRT


def test_a_file_gets_the_words_of_a_crash(tmp_path):
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    assert run("libc.abort()", descriptor).returncode == -signal.SIGABRT
    os.close(descriptor)
    assert "Fatal Python error: Aborted" in (tmp_path / "log").read_text()

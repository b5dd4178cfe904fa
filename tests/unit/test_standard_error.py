"""Lines to a descriptor that is slow, broken, mended: the callers never notice."""

import os
import resource
import signal
import subprocess
import sys
import threading
from functools import partial

import pytest

from forebay_server.service.standard_error import LineWriter
from tests.support.broken_output import KINDS, broken, fill
from tests.support.guard import HANG_GUARD_S

NOTICE = "forebay: {} lines are missing here: standard error took no more"


class Reader:
    """Reads a descriptor to its end on a thread."""

    def __init__(self, descriptor):
        self._data = b""
        self._descriptor = descriptor
        self._thread = threading.Thread(target=self._read, name="reader", daemon=True)
        self._thread.start()

    def _read(self):
        with os.fdopen(self._descriptor, "rb") as file:
            self._data = file.read()

    def lines(self):
        self._thread.join(HANG_GUARD_S)
        return self._data.lstrip(b"\0").decode().splitlines()


def test_lines_come_whole_in_order_and_before_the_end():
    read, write = os.pipe()
    reader, writer = Reader(read), LineWriter(write)
    for number in range(1000):
        writer.put(f"line {number}")
    assert writer.close(HANG_GUARD_S)
    os.close(write)
    assert reader.lines() == [f"line {number}" for number in range(1000)]
    assert writer.dropped == 0


def test_a_reader_that_takes_nothing_costs_lines_which_are_told_once_it_reads():
    read, write = os.pipe()
    fill(write)
    writer = LineWriter(write, max_waiting_bytes=1000)
    for number in range(1000):
        writer.put(f"line {number:04}")  # 10 bytes
    assert writer.dropped == 900
    assert not writer.close(0.01)
    reader = Reader(read)
    writer.put("later")  # a second thread writes it, since the first one is given up
    assert writer.close(HANG_GUARD_S)
    writers = [thread for thread in threading.enumerate() if thread.name == "log writer"]
    for thread in writers:
        thread.join(HANG_GUARD_S)
    os.close(write)
    lines = reader.lines()
    assert [line for line in lines if line.startswith("line")] == [f"line {number:04}" for number in range(100)]
    others = [line for line in lines if not line.startswith("line")]
    losses = [int(line.split()[1]) for line in others if line != "later"]
    assert sorted(others) == sorted([*(NOTICE.format(count) for count in losses), "later"])
    assert sum(losses) == 900  # in two notices if the first line was taken off before the last one was lost


def closed_descriptor():
    descriptor = os.open(os.devnull, os.O_RDONLY)
    os.close(descriptor)
    return descriptor


@pytest.mark.parametrize("kind", KINDS)
def test_no_kind_of_broken_descriptor_is_noticed(kind):
    with broken(kind) as descriptor:
        writer = LineWriter(closed_descriptor() if descriptor is None else descriptor, max_waiting_bytes=3000)
        for _ in range(1000):
            writer.put("line")
        is_over = writer.close(0.01 if kind == "reader takes nothing" else HANG_GUARD_S)
        assert is_over == (kind != "reader takes nothing")
        assert writer.dropped == (400 if kind == "reader takes nothing" else 1000)
    for thread in threading.enumerate():
        if thread.name == "log writer":
            thread.join(HANG_GUARD_S)


def test_a_reader_that_comes_back_gets_what_is_put_from_then_on(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    first = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    write = os.open(tmp_path / "fifo", os.O_WRONLY)
    writer = LineWriter(write)
    writer.put("seen")
    assert writer.close(HANG_GUARD_S)
    assert os.read(first, 100) == b"seen\n"
    os.close(first)
    writer.put("lost")
    writer.put("lost")
    assert writer.close(HANG_GUARD_S)
    second = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    writer.put("seen again")
    writer.put("and again")
    assert writer.close(HANG_GUARD_S)
    assert os.read(second, 1000).decode().splitlines() == [NOTICE.format(2), "seen again", "and again"]
    assert writer.dropped == 2
    os.close(write)
    os.close(second)


def test_a_disk_that_gets_space_takes_whole_lines_again(tmp_path):
    write = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    writer = LineWriter(write)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        writer.put("cut after this")
        writer.put("lost")
        assert writer.close(HANG_GUARD_S)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    writer.put("whole")
    assert writer.close(HANG_GUARD_S)
    os.close(write)
    assert (tmp_path / "log").read_text().splitlines() == ["cut after ", NOTICE.format(2), "whole"]


def test_a_descriptor_that_somebody_made_non_blocking_is_waited_for():
    read, write = os.pipe()
    filler = fill(write)
    os.set_blocking(write, False)
    writer = LineWriter(write)
    writer.put("line")
    assert os.read(read, filler).count(0)
    assert writer.close(HANG_GUARD_S)
    assert writer.dropped == 0
    reader = Reader(read)
    os.close(write)
    assert reader.lines() == ["line"]


def test_a_signal_handler_may_put_while_its_thread_does():
    read, write = os.pipe()
    reader, writer = Reader(read), LineWriter(write)
    before = signal.signal(signal.SIGALRM, lambda *_: writer.put("from the handler"))
    signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
    try:
        for _ in range(5000):
            writer.put("from the thread")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert writer.close(HANG_GUARD_S)
    os.close(write)
    lines = reader.lines()
    assert lines.count("from the thread") == 5000
    assert set(lines) <= {"from the thread", "from the handler"}


def interrupted_at(point, functions, act, interrupt):
    """Run `act`, and `interrupt` before the bytecode number `point` of some functions; False if they have fewer."""
    left = [point]

    def trace(frame, event, _):
        frame.f_trace_opcodes = frame.f_code.co_name in functions
        if event == "opcode":
            if left[0] == 0:
                sys.settrace(None)
                left[0] = -1
                interrupt()
            else:
                left[0] -= 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(before)
    return left[0] < 0


@pytest.mark.parametrize("act", ["put", "close"])
def test_a_signal_handler_may_put_at_any_point_and_there_is_one_thread(act):
    """As signals do, but at each point once. A line that a handler puts into a close may wait for the next line."""
    for point in range(10_000):
        read, write = os.pipe()
        writer = LineWriter(write)
        acts = {"put": partial(writer.put, "line"), "close": partial(writer.close, HANG_GUARD_S)}
        if act == "close":
            writer.put("line")
        is_interrupted = interrupted_at(point, {"put", "close", "_start"}, acts[act], partial(writer.put, "handler"))
        assert writer.close(HANG_GUARD_S)
        assert [thread.name for thread in threading.enumerate()].count("log writer") == 0, point
        os.close(write)
        lines = Reader(read).lines()
        if not is_interrupted:
            break
        assert "line" in lines
        assert act == "close" or sorted(lines) == ["handler", "line"], point
    assert 40 < point < 10_000


def written_by(program):
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=HANG_GUARD_S)
    return done.stderr.splitlines()


def test_a_child_writes_its_own_lines_and_not_its_parents():
    program = """
import os, threading
from forebay_server.service.standard_error import STANDARD_ERROR
STANDARD_ERROR.put("parent")
child = os.fork()
STANDARD_ERROR.put("child" if child == 0 else "parent again")
if child:
    os.waitpid(child, 0)
STANDARD_ERROR.close(10)
os._exit(0)
"""
    assert sorted(written_by(program)) == ["child", "parent", "parent again"]


def test_lines_that_wait_at_the_end_of_a_process_are_written():
    program = "from forebay_server.service.standard_error import say\nfor number in range(500): say(number)"
    assert written_by(program) == [f"forebay: {number}" for number in range(500)]

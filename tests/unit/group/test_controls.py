"""The parent connects each process that starts with those that run."""

import asyncio
import contextlib
import gc
import json
import os
import resource
import socket

from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from forebay_server.service.group.control_end import ControlEnd
from forebay_server.service.group.controls import Controls, hand_over
from tests.support.real_server import eventually


class Process:
    """The other end of a control socket: it has the sockets that it was sent, by who is at the other end."""

    def __init__(self, stack):
        ours, self.control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.given, self.sockets = ours, {}
        self.control.setblocking(False)
        self._stack = stack
        stack.callback(self.control.close)

    def read(self):
        with contextlib.suppress(BlockingIOError):
            while True:
                data, descriptors, _, _ = socket.recv_fds(self.control, 4096, 2)
                if not data:
                    return
                for each in descriptors:
                    self._stack.callback(os.close, each)
                ((role, number),) = json.loads(data).items()
                self.sockets[role, number] = descriptors


def are_connected(one, other):
    """Whether what one sends on each socket comes out of the other's."""
    for ours, theirs in zip(one, other, strict=True):
        os.write(ours, b"x")
        assert os.read(theirs, 1) == b"x"
    return len(one)


starts = st.lists(st.tuples(st.booleans(), st.integers(0, 2)), min_size=1, max_size=8)


@given(starts)
def test_whoever_starts_is_connected_with_all_that_run(order):
    with contextlib.ExitStack() as stack:
        controls = Controls()
        stack.callback(controls.close)
        engines, front_ends = {}, {}
        for is_engine, number in order:
            process = Process(stack)
            (engines if is_engine else front_ends)[number] = process
            with (controls.adding_engine if is_engine else controls.adding_front_end)(number) as connect:
                connect(process.given)
        for process in (*engines.values(), *front_ends.values()):
            process.read()
        for engine, process in engines.items():
            for front_end, other in front_ends.items():
                assert are_connected(process.sockets["front_end", front_end], other.sockets["engine", engine]) == 2
            if engine and 0 in engines:
                assert are_connected(process.sockets["first", 0], engines[0].sockets["engine", engine]) == 1


def test_a_process_that_has_ended_is_passed_over():
    with contextlib.ExitStack() as stack:
        controls = Controls()
        gone, other = Process(stack), Process(stack)
        with controls.adding_engine(0) as connect:
            connect(gone.given)
        gone.control.close()
        with controls.adding_front_end(0) as connect:
            connect(other.given)
        other.read()
        data, _ = other.sockets["engine", 0]
        assert os.read(data, 1) == b"", "the end of file: it has gone"
        controls.close()
        controls.close()


def test_a_process_takes_in_the_sockets_of_others_and_goes_on_after_some_that_are_lost():
    async def run():
        with contextlib.ExitStack() as stack:
            found = []
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            stack.enter_context(ours)
            end = ControlEnd(theirs, lambda names, sockets: found.append((names, sockets)))
            stack.callback(end.close)
            end.listen()
            pairs = [socket.socketpair() for _ in range(3)]
            for pair in pairs:
                for each in pair:
                    stack.enter_context(each)
            hand_over(ours, {"engine": 0}, pairs[0][1])
            await eventually(lambda: found)
            with no_more_files(), capture_logs() as logs:
                hand_over(ours, {"engine": 1}, pairs[1][1])
                await eventually(lambda: logs)
            pairs[1][1].close()
            assert pairs[1][0].recv(1) == b"", "the other end finds out"
            assert [(line["engine"], line["log_level"]) for line in logs] == [(1, "error")]
            hand_over(ours, {"engine": 2}, pairs[2][1])
            await eventually(lambda: len(found) == 2)
            assert [names for names, _ in found] == [{"engine": 0}, {"engine": 2}]
            for number, (_, sockets) in zip((0, 2), found, strict=True):
                for each in sockets:
                    stack.enter_context(each)
                    each.send(b"x")
                    assert pairs[number][0].recv(1) == b"x"
                    assert not each.get_inheritable()
            end.close()
            end.close()

    asyncio.run(run())


@contextlib.contextmanager
def no_more_files():
    """Within the block this process can open no file, unless it closes one."""
    gc.collect()  # sockets of tests before this one: no lower number becomes free
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

"""The parent connects each process that starts with those that run."""

import contextlib
import json
import os
import socket

from hypothesis import given
from hypothesis import strategies as st

from forebay_server.service.group.controls import Controls


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
            (controls.add_engine if is_engine else controls.add_front_end)(number, process.given)
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
        controls.add_engine(0, gone.given)
        gone.control.close()
        controls.add_front_end(0, other.given)
        other.read()
        data, _ = other.sockets["engine", 0]
        assert os.read(data, 1) == b"", "the end of file: it has gone"
        controls.close()
        controls.close()

"""The parent's control sockets, and the connections of processes that it makes over them.

Where there are several engine processes, each front-end process is connected to each of them, and the first engine
process to each other one. Whenever a process starts, it is connected with all that run. A message is a socket pair's
end or two, and who is at the other end:

    to an engine process        {"front_end": number}, data and talk; {"engine": number} or {"first": 0}, talk
    to a front-end process      {"engine": number}, data and talk

Thread: the main thread of the parent.
"""

import contextlib
import json
import socket
from collections.abc import Mapping


class Controls:
    """See the module."""

    def __init__(self) -> None:
        self._engines: dict[int, socket.socket] = {}
        self._front_ends: dict[int, socket.socket] = {}

    def engine(self, index: int) -> socket.socket | None:
        """Return the control socket of an engine process, if it was started."""
        return self._engines.get(index)

    def add_engine(self, index: int, control: socket.socket) -> None:
        """Connect an engine process that has started; its socket is owned from now on."""
        _put(self._engines, index, control)
        for front_end in self._front_ends:
            self._connect(index, front_end)
        for other in self._engines:
            if other != index and 0 in (other, index):
                self._connect_engines(max(other, index))

    def add_front_end(self, index: int, control: socket.socket) -> None:
        """Connect a front-end process that has started; its socket is owned from now on."""
        _put(self._front_ends, index, control)
        for engine in self._engines:
            self._connect(engine, index)

    def _connect(self, engine: int, front_end: int) -> None:
        data, their_data = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        talk, their_talk = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with data, their_data, talk, their_talk:
            hand_over(self._engines[engine], {"front_end": front_end}, data, talk)
            hand_over(self._front_ends[front_end], {"engine": engine}, their_data, their_talk)

    def _connect_engines(self, other: int) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with ours, theirs:
            hand_over(self._engines[0], {"engine": other}, ours)
            hand_over(self._engines[other], {"first": 0}, theirs)

    def close(self) -> None:
        """Close all. Idempotent."""
        for control in (*self._engines.values(), *self._front_ends.values()):
            control.close()


def hand_over(control: socket.socket, message: Mapping[str, int], *sockets: socket.socket) -> None:
    """Send sockets to a process; nothing if it has ended, which says so by itself."""
    with contextlib.suppress(OSError):
        socket.send_fds(control, [json.dumps(message).encode()], [each.fileno() for each in sockets])


def _put(controls: dict[int, socket.socket], index: int, control: socket.socket) -> None:
    if index in controls:
        controls[index].close()
    controls[index] = control

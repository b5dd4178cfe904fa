"""The parent's control sockets, and the connections of processes that it makes over them.

Where there are several engine processes, each front-end process is connected to each of them, and the first engine
process to each other one. Whenever a process starts, it is connected with all that run. A message is a socket pair's
end or two, and who is at the other end:

    to an engine process        {"front_end": number}, data and talk; {"engine": number} or {"first": 0}, talk
    to a front-end process      {"engine": number}, data and talk

The sockets are made before the process is started: where they cannot be had, nothing has to be undone. `control_end`
has the other end of a control socket.

Thread: the main thread of the parent.
"""

import contextlib
import json
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

Pair = tuple[socket.socket, socket.socket]


class _Way(NamedTuple):
    """A connection of a process that is about to start with one that runs.

    Attributes:
        other: control socket of the process that runs.
        to_other: message to it.
        to_new: message to the process that starts.
        pairs: the sockets, first the end of the process that runs.
    """

    other: socket.socket
    to_other: Mapping[str, int]
    to_new: Mapping[str, int]
    pairs: Sequence[Pair]


class Controls:
    """See the module."""

    def __init__(self) -> None:
        self._engines: dict[int, socket.socket] = {}
        self._front_ends: dict[int, socket.socket] = {}

    def engine(self, index: int) -> socket.socket | None:
        """Return the control socket of an engine process, if it was started."""
        return self._engines.get(index)

    @contextlib.contextmanager
    def adding_engine(self, index: int) -> Iterator[Callable[[socket.socket], None]]:
        """Make the connections of an engine process that is started within the block.

        Yields a function that hands them over: called with its control socket, which is owned from then on. Raises
        OSError at once if the sockets cannot be had.
        """
        with contextlib.ExitStack() as made:
            ways = [
                _Way(other, {"engine": index}, {"front_end": front_end}, _pairs(made))
                for front_end, other in self._front_ends.items()
            ]
            for number, other in self._engines.items():
                if number != index and 0 in (number, index):
                    names = ({"engine": index}, {"first": 0}) if index else ({"first": 0}, {"engine": number})
                    ways.append(_Way(other, *names, [_pair(made, socket.SOCK_STREAM)]))
            yield lambda control: _hand_over(_put(self._engines, index, control), ways)

    @contextlib.contextmanager
    def adding_front_end(self, index: int) -> Iterator[Callable[[socket.socket], None]]:
        """Make the connections of a front-end process; see `adding_engine`."""
        with contextlib.ExitStack() as made:
            ways = [
                _Way(other, {"front_end": index}, {"engine": engine}, _pairs(made))
                for engine, other in self._engines.items()
            ]
            yield lambda control: _hand_over(_put(self._front_ends, index, control), ways)

    def close(self) -> None:
        """Close all. Idempotent."""
        for control in (*self._engines.values(), *self._front_ends.values()):
            control.close()


def hand_over(control: socket.socket, message: Mapping[str, int], *sockets: socket.socket) -> None:
    """Send sockets to a process; nothing if it has ended, which says so by itself."""
    with contextlib.suppress(OSError):
        socket.send_fds(control, [json.dumps(message).encode()], [each.fileno() for each in sockets])


def _hand_over(control: socket.socket, ways: Sequence[_Way]) -> None:
    for way in ways:
        hand_over(way.other, way.to_other, *(theirs for theirs, _ in way.pairs))
        hand_over(control, way.to_new, *(own for _, own in way.pairs))


def _pairs(made: contextlib.ExitStack) -> list[Pair]:
    """Return the sockets for frames and for messages; `made` closes them."""
    return [_pair(made, socket.SOCK_SEQPACKET), _pair(made, socket.SOCK_STREAM)]


def _pair(made: contextlib.ExitStack, kind: socket.SocketKind) -> Pair:
    one, other = socket.socketpair(socket.AF_UNIX, kind)
    return made.enter_context(one), made.enter_context(other)


def _put(controls: dict[int, socket.socket], index: int, control: socket.socket) -> socket.socket:
    if index in controls:
        controls[index].close()
    controls[index] = control
    return control

"""A process's end of its control socket: the parent sends the sockets of other processes over it (`controls`).

Owner: the event loop's thread.
"""

import asyncio
import json
import os
import socket
from collections.abc import Callable, Mapping

import structlog

log = structlog.get_logger(__name__)

MAX_CONTROL_BYTES = 4096
MOST_SOCKETS = 2  # of a message


class ControlEnd:
    """See the module.

    Args:
        control: owned from now on.
        on_sockets: called with who is at the other ends, as `controls` names them, and the sockets, to own.
    """

    def __init__(
        self, control: socket.socket, on_sockets: Callable[[Mapping[str, int], list[socket.socket]], None]
    ) -> None:
        control.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self._control = control
        self._on_sockets = on_sockets
        self._loop = asyncio.get_running_loop()

    def listen(self) -> None:
        """Take sockets in from now on."""
        self._loop.add_reader(self._control, self._read)

    def close(self) -> None:
        """Take no more in. Idempotent."""
        if self._control.fileno() >= 0:
            self._loop.remove_reader(self._control)
            self._control.close()

    def _read(self) -> None:
        while self._control.fileno() >= 0:
            try:
                data, descriptors, flags, _ = socket.recv_fds(self._control, MAX_CONTROL_BYTES, MOST_SOCKETS)
            except BlockingIOError:
                return
            except OSError:
                data, descriptors, flags = b"", [], 0
            if not data:  # the parent has gone, and this process gets a signal for that
                self._loop.remove_reader(self._control)
                return
            names, sockets = json.loads(data), sockets_of(descriptors)
            if flags & socket.MSG_CTRUNC:
                log.error("sockets of another process are lost: this process may have too many files open", **names)
                for each in sockets:
                    each.close()  # the process at the other end finds that there is no connection
            else:
                self._on_sockets(names, sockets)


def sockets_of(descriptors: list[int]) -> list[socket.socket]:
    """Return sockets of descriptors that have come from another process."""
    for each in descriptors:
        os.set_inheritable(each, False)  # noqa: FBT003 - the standard library's signature
    return [socket.socket(fileno=each) for each in descriptors]

"""Sends records in datagrams without ever blocking: they wait here, in order, until the socket takes them.

A socket holds few datagrams, ten on some systems, of any size: records that come while others wait are joined.

Thread: any, one at a time; a lock of the caller's sees to that. The loop calls its own callbacks.
"""

import asyncio
import socket
import threading
from collections import deque
from contextlib import suppress

from forebay_server.service.group import descriptors as wire


class Datagrams:
    """See the module.

    Args:
        connection: a non-blocking socket; the caller's.
        lock: held by every caller of `send`.
        loop: waits until the socket is writable.
    """

    def __init__(self, connection: socket.socket, lock: threading.Lock, loop: asyncio.AbstractEventLoop) -> None:
        self._socket = connection
        self._lock = lock
        self._loop = loop
        self._waiting: deque[bytes] = deque()
        self._records: list[bytes] = []  # that go behind those
        self._is_open = True

    @property
    def are_waiting(self) -> bool:
        """Whether the socket has not taken all of them."""
        return bool(self._waiting)

    def send(self, records: list[bytes]) -> None:
        """Send records, in their order. The lock is held. Blocks: no."""
        if self._waiting:
            self._records += records
            return
        self._waiting.extend(wire.datagrams(records))
        if not self._send_waiting():
            self._loop.call_soon_threadsafe(self._watch)

    def close(self) -> None:
        """Send no more. Thread: the event loop's."""
        self._is_open = False
        self._loop.remove_writer(self._socket)
        self._waiting.clear()
        self._records = []

    def _send_waiting(self) -> bool:
        """Send until nothing waits; return whether that is so. The lock is held."""
        waiting = self._waiting
        while waiting:
            try:
                self._socket.send(waiting[0], socket.MSG_NOSIGNAL)
            except BlockingIOError:
                return False
            except OSError:  # the other process has gone, or the link ends here: a record that is lost has no answer
                waiting.clear()
                self._records = []
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)  # reading finds the end, and says so
                return True
            waiting.popleft()
            if not waiting and self._records:
                waiting.extend(wire.datagrams(self._records))
                self._records = []
        return True

    def _watch(self) -> None:
        if self._is_open:
            self._loop.add_writer(self._socket, self._on_writable)

    def _on_writable(self) -> None:
        with self._lock:
            is_done = self._send_waiting()
        if is_done:
            self._loop.remove_writer(self._socket)

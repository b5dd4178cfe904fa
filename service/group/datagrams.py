"""Sends records in datagrams without ever blocking: they wait here, in order, until the socket takes them.

A socket holds few datagrams, ten on some systems, of any size: records that come while others wait are joined.

Thread: any, one at a time; a lock of the caller's sees to that. The loop calls its own callbacks.
"""

import asyncio
import socket
import threading
from array import array
from collections import deque
from contextlib import suppress
from typing import TypeAlias

from forebay_server.service.group import descriptors as wire

Waiting: TypeAlias = tuple[bytes, tuple[int, ...]]
"""A datagram that has not been sent, and the file descriptors that go with it."""


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
        self._waiting: deque[Waiting] = deque()
        self._records: list[bytes] = []  # that go behind those, and their files
        self._files: list[int] = []
        self._is_open = True

    @property
    def are_waiting(self) -> bool:
        """Whether the socket has not taken all of them."""
        return bool(self._waiting)

    def send(self, records: list[bytes], files: list[int]) -> None:
        """Send records, and the files of those that have one, in their order. The lock is held. Blocks: no.

        Files stay the caller's, open until the datagram was answered.
        """
        if self._waiting:
            self._records += records
            self._files += files
            return
        self._join(records, files)
        if not self._send_waiting():
            self._loop.call_soon_threadsafe(self._watch)

    def _join(self, records: list[bytes], files: list[int]) -> None:
        if files:
            self._waiting.extend(_with_files(records, files))
        else:
            self._waiting.extend((datagram, ()) for datagram in wire.datagrams(records))

    def close(self) -> None:
        """Send no more. Thread: the event loop's."""
        self._is_open = False
        self._loop.remove_writer(self._socket)
        self._waiting.clear()
        self._records, self._files = [], []

    def _send_waiting(self) -> bool:
        """Send until nothing waits; return whether that is so. The lock is held."""
        waiting = self._waiting
        while waiting:
            datagram, files = waiting[0]
            try:
                if files:
                    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", files))]
                    self._socket.sendmsg([datagram], rights, socket.MSG_NOSIGNAL)
                else:
                    self._socket.send(datagram, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                return False
            except OSError:  # the other process has gone, or the link ends here: a record that is lost has no answer
                waiting.clear()
                self._records, self._files = [], []
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)  # reading finds the end, and says so
                return True
            waiting.popleft()
            if not waiting and self._records:
                self._join(self._records, self._files)
                self._records, self._files = [], []
        return True

    def _watch(self) -> None:
        if self._is_open:
            self._loop.add_writer(self._socket, self._on_writable)

    def _on_writable(self) -> None:
        with self._lock:
            is_done = self._send_waiting()
        if is_done:
            self._loop.remove_writer(self._socket)


def _with_files(records: list[bytes], files: list[int]) -> list[Waiting]:
    """Join records to datagrams, each with the files of its records."""
    found: list[Waiting] = []
    start = 0
    own: list[int] = []
    rest = deque(files)
    for index, record in enumerate(records):
        if index - start == wire.MAX_RECORDS or len(own) == wire.MAX_FILES:
            found.append((b"".join(records[start:index]), tuple(own)))
            start, own = index, []
        if record[0] == wire.REQUEST and record[1] & wire.HAS_FILE:
            own.append(rest.popleft())
    found.append((b"".join(records[start:]), tuple(own)))
    return found

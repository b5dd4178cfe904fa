"""A conversation of two processes of one server over a stream socket: messages in order, file descriptors with them.

A message that is lost would leave the two processes with different views of the models for ever. So a conversation
ends where one cannot be sent or its descriptors are lost. The front-end process ends with it, starts anew, and is given
everything again.

On the wire a message is eight bytes, its length and the number of its descriptors, and then its pickle. The descriptors
travel with the first of these bytes (SCM_RIGHTS), and are the receiver's to close.

Pickles are safe here: the socket is a pair that the parent made for two processes of its own.

Owner: the event loop's thread.
"""

import asyncio
import os
import pickle
import socket
import struct
from array import array
from collections import deque
from collections.abc import Callable, Sequence

import structlog

log = structlog.get_logger(__name__)

_HEAD = struct.Struct("<II")
_READ_BYTES = 1 << 18
_MOST_DESCRIPTORS = 64  # of one read; a message has at most two


class Talk:
    """See the module.

    Args:
        connection: owned from now on.
        on_message: called with each message and its descriptors, which it has to close.
        on_end: called once, when the other process has closed its end or has died, or when descriptors are lost: this
            process may have no more files, and those that come later would be taken for others.
    """

    def __init__(
        self,
        connection: socket.socket,
        on_message: Callable[[object, list[int]], None],
        on_end: Callable[[], None],
    ) -> None:
        connection.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self._socket = connection
        self._on_message = on_message
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        self._descriptors: deque[int] = deque()
        self._waiting: deque[tuple[memoryview, tuple[int, ...]]] = deque()
        self._is_open = True
        self._progress = asyncio.Event()
        self._loop.add_reader(connection, self._read)

    @property
    def is_open(self) -> bool:
        """Whether messages can still be sent."""
        return self._is_open

    @property
    def is_behind(self) -> bool:
        """Whether messages wait for the other process to read."""
        return bool(self._waiting)

    def send(self, message: object, descriptors: Sequence[int] = ()) -> None:
        """Send a message; lost if the other process has gone. Blocks: no.

        Where descriptors cannot be duplicated, because this process has too many files open, the conversation ends.

        Args:
            message: a value of `messages`.
            descriptors: the other process gets duplicates; these stay the caller's, who may close them at once.
        """
        if not self._is_open:
            return
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        try:
            own = _duplicates(descriptors)
        except OSError as error:
            log.error("a message cannot be sent", message=type(message).__name__, reason=error.strerror)  # noqa: TRY400
            self._end()
            return
        self._waiting.append((memoryview(_HEAD.pack(len(data), len(own)) + data), own))
        if len(self._waiting) == 1:
            self._write()

    async def sent(self) -> None:
        """Return when all messages are on their way, or the other process has gone."""
        while self._is_open and self._waiting:
            self._progress.clear()
            await self._progress.wait()

    def close(self) -> None:
        """Close this end. Idempotent; `on_end` is not called."""
        if not self._is_open:
            return
        self._is_open = False
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        for _, descriptors in self._waiting:
            _close_all(descriptors)
        _close_all(self._descriptors)
        self._descriptors.clear()
        self._waiting.clear()
        self._progress.set()

    def _write(self) -> None:
        while self._waiting:
            data, descriptors = self._waiting[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))] if descriptors else []
            try:
                sent = self._socket.sendmsg([data], rights, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                self._loop.add_writer(self._socket, self._write)
                return
            except OSError:  # the reader finds the end as well, and says so
                self._loop.remove_writer(self._socket)
                return
            _close_all(descriptors)
            if sent == len(data):
                self._waiting.popleft()
            else:
                self._waiting[0] = (data[sent:], ())
        self._progress.set()
        self._loop.remove_writer(self._socket)

    def _read(self) -> bool:
        """Read once; return whether there was something."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self._socket, _READ_BYTES, _MOST_DESCRIPTORS)
        except BlockingIOError:
            return False
        except OSError:
            data, descriptors = b"", []
        self._descriptors.extend(descriptors)
        if not data:
            self._end()
            return False
        self._received += data
        self._take_messages()
        return True

    def _end(self) -> None:
        self.close()
        self._on_end()

    def take_rest(self) -> None:
        """Handle the messages that have come already: the last words of a process that has gone. Blocks: no."""
        while self._is_open and self._read():
            pass

    def _take_messages(self) -> None:
        received, start = self._received, 0
        while self._is_open and len(received) - start >= _HEAD.size:
            nbytes, count = _HEAD.unpack_from(received, start)
            end = start + _HEAD.size + nbytes
            if len(received) < end:
                break
            message = pickle.loads(memoryview(received)[start + _HEAD.size : end])  # noqa: S301 - see the module
            start = end
            if len(self._descriptors) < count:
                log.error("a message came without its files: this process may have too many open", files=count)
                self._end()
                return
            descriptors = [self._descriptors.popleft() for _ in range(count)]
            try:
                self._on_message(message, descriptors)
            except Exception:
                log.exception("message of another process failed", message=type(message).__name__)
        del received[:start]


def _duplicates(descriptors: Sequence[int]) -> tuple[int, ...]:
    """Return duplicates of all descriptors. Raises OSError, and leaves none then."""
    own: list[int] = []
    try:
        own.extend(map(os.dup, descriptors))
    except OSError:
        _close_all(own)
        raise
    return tuple(own)


def _close_all(descriptors: Sequence[int] | deque[int]) -> None:
    for each in descriptors:
        os.close(each)

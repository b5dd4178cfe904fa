"""A client made by hand whose messages never end: all but the last byte of each, as fast as flow control lets it."""

import asyncio
import contextlib
import struct
from collections import Counter

from tests.support import http2 as h

CHUNK_BYTES = 16_384  # the most that every HTTP/2 peer takes in a frame
DEFAULT_WINDOW = 65_535
_SETTING = struct.Struct(">HI")
_INITIAL_WINDOW_SIZE = 4
_FIELDS = struct.Struct(">BI")


class HalfSent:
    """One connection with calls that each hold a message without its last byte.

    Attributes:
        sent: bytes of DATA by stream number.
        ended: the frame's kind and payload with which the server ended a stream, by stream number.
        is_over: whether the server closed the connection.
    """

    def __init__(self, reader, writer, calls, nbytes, path):
        self._reader, self._writer = reader, writer
        self._path = path
        self._nbytes = nbytes
        self.streams = [2 * index + 1 for index in range(calls)]
        self.sent = Counter()
        self.ended = {}
        self.is_over = asyncio.Event()
        self._initial = DEFAULT_WINDOW
        self._window = DEFAULT_WINDOW
        self._windows = Counter()  # bytes that a stream may send beyond the initial window
        self._may_send = asyncio.Event()
        self._tasks = []

    @classmethod
    async def connect(cls, address, calls, nbytes, path="/inference.GRPCInferenceService/ModelInfer", first=b""):
        """Open the calls; `first` is a whole message that goes before the one that does not end."""
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        client = cls(reader, writer, calls, nbytes, path)
        writer.write(h.PREFACE + h.frame(h.SETTINGS))
        for stream in client.streams:
            writer.write(h.frame(h.HEADERS, h.END_HEADERS, stream, h.call(path)))
        client._begin = first + h.message(b"", length=nbytes)
        client._tasks = [asyncio.create_task(client._receive()), asyncio.create_task(client._send())]
        return client

    @property
    def held_bytes(self):
        """Bytes that the server received of calls that it has not ended."""
        return sum(count for stream, count in self.sent.items() if stream not in self.ended)

    @property
    def is_full(self):
        """Whether each call has but its last byte to send, or has ended."""
        return all(stream in self.ended or self._left(stream) == 0 for stream in self.streams)

    def _left(self, stream):
        return len(self._begin) + self._nbytes - 1 - self.sent[stream]

    def write(self, frames):
        """Send frames of a call that is not one of `streams`."""
        self._writer.write(frames)

    async def close(self):
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._writer.transport.abort()  # the server may never take the rest

    async def _send(self):
        filler = bytes(CHUNK_BYTES)
        with contextlib.suppress(OSError):
            while True:
                self._may_send.clear()
                is_stuck = True
                for stream in self.streams:
                    if stream in self.ended:
                        continue
                    room = min(self._initial + self._windows[stream], self._window, self._left(stream), CHUNK_BYTES)
                    if room <= 0:
                        continue
                    is_stuck = False
                    start = self.sent[stream]
                    payload = (self._begin[start:] + filler)[:room] if start < len(self._begin) else filler[:room]
                    self.sent[stream] += room
                    self._windows[stream] -= room
                    self._window -= room
                    self._writer.write(h.frame(h.DATA, 0, stream, payload))
                    await self._writer.drain()
                if is_stuck:
                    await self._may_send.wait()

    async def _receive(self):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await self._reader.readexactly(9)
                kind, flags, stream = struct.unpack(">BBI", head[3:])
                payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
                self._take(kind, flags, stream, payload)
        self.is_over.set()

    def _take(self, kind, flags, stream, payload):
        if kind == h.SETTINGS and not flags & h.ACK:
            for name, value in _SETTING.iter_unpack(payload):
                if name == _INITIAL_WINDOW_SIZE:
                    self._initial = value
            self._writer.write(h.frame(h.SETTINGS, h.ACK))
        elif kind == h.PING and not flags & h.ACK:
            self._writer.write(h.frame(h.PING, h.ACK, 0, payload))
        elif kind == h.WINDOW_UPDATE:
            (more,) = struct.unpack(">I", payload)
            if stream:
                self._windows[stream] += more
            else:
                self._window += more
        elif kind == h.RST_STREAM or (kind == h.HEADERS and flags & h.END_STREAM):
            self.ended.setdefault(stream, payload)
        self._may_send.set()

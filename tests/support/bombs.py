"""A client made by hand whose messages are small and inflate to many megabytes. A call that ends is followed by one."""

import asyncio
import contextlib
import gzip
import struct
from collections import deque

from tests.support import http2 as h

FRAME_BYTES = 16_384  # the most that every HTTP/2 peer takes
GZIP = h.field("grpc-encoding", "gzip")


def bomb(payload):
    """Return a compressed gRPC message; for zeros, its size is a thousandth of the inflated size."""
    return h.message(gzip.compress(payload), is_compressed=True)


class Bombs:
    """One connection with calls that each send the same messages.

    Attributes:
        begun: how many calls there have been.
        ended: how many of them the server has ended.
    """

    def __init__(self, reader, writer, path, messages, harmless):
        self._reader, self._writer = reader, writer
        self._path, self._messages = path, messages
        self._harmless = harmless
        self.begun = self.ended = 0
        self._window = 65_535  # of the connection
        self._waiting = deque()  # streams that have not sent their messages
        self._receiving = None

    @classmethod
    async def connect(cls, address, calls, path, messages, harmless=b""):
        """Open the calls. The message of each has to fit the first window of a stream, 64 KB.

        With `harmless` the first calls send that, and it is answered before a bomb is sent.
        """
        host, _, port = address.rpartition(":")
        client = cls(*await asyncio.open_connection(host, int(port)), path, messages, harmless)
        client._writer.write(h.PREFACE + h.frame(h.SETTINGS))
        for _ in range(calls):
            client._begin()
        client._receiving = asyncio.create_task(client._receive())
        return client

    def _begin(self):
        stream = 2 * self.begun + 1
        self.begun += 1
        self._writer.write(h.frame(h.HEADERS, h.END_HEADERS, stream, h.call(self._path, GZIP)))
        self._waiting.append(stream)
        self._send()

    def _send(self):
        messages = self._harmless or self._messages
        while self._waiting and self._window >= len(messages):
            self._window -= len(messages)
            *whole, last = [messages[at : at + FRAME_BYTES] for at in range(0, len(messages), FRAME_BYTES)]
            stream = self._waiting.popleft()
            self._writer.writelines(h.frame(h.DATA, 0, stream, part) for part in whole)
            self._writer.write(h.frame(h.DATA, h.END_STREAM, stream, last))

    async def _receive(self):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await self._reader.readexactly(9)
                kind, flags, stream = struct.unpack(">BBI", head[3:])
                payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
                if kind in (h.SETTINGS, h.PING) and not flags & h.ACK:
                    self._writer.write(h.frame(kind, h.ACK, 0, payload if kind == h.PING else b""))
                elif kind == h.WINDOW_UPDATE and not stream:
                    self._window += struct.unpack(">I", payload)[0]
                    self._send()
                elif kind == h.RST_STREAM or (kind == h.HEADERS and flags & h.END_STREAM):
                    self.ended += 1
                    if not self._harmless:
                        self._begin()
                    elif self.ended == self.begun:
                        self._harmless = b""
                        for _ in range(self.ended):
                            self._begin()

    async def close(self):
        self._receiving.cancel()
        await asyncio.gather(self._receiving, return_exceptions=True)
        self._writer.transport.abort()

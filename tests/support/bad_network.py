"""A proxy that treats bytes as networks do: delays them, delivers them in slices, stalls, and cuts the connection.

Its behaviour follows from a seed and from the number of bytes that have passed, never from the clock, so that a run can
be repeated; only delays take time. Bytes are never lost or reordered while a connection lives: TCP would not do that
either.
"""

import asyncio
import contextlib
import random
from contextlib import asynccontextmanager

CHUNK_BYTES = 65_536


class BadNetwork:
    """A proxy before one server.

    Args:
        target: host:port of the server.
        seed: of every choice.
        delay_s: how long each chunk is held back, at most.
        least_delay_s: at least.
        slice_bytes: the longest piece that is passed on at once.
        cut_after_bytes: a connection is cut once so many bytes have passed it, in both directions together, on average;
            None: never.
    """

    def __init__(
        self, target, *, seed=1, delay_s=0.0, least_delay_s=0.0, slice_bytes=CHUNK_BYTES, cut_after_bytes=None
    ):
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._random = random.Random(seed)  # noqa: S311 - to be repeated, not secret
        self._delay_s = delay_s
        self._least_delay_s = least_delay_s
        self._slice_bytes = slice_bytes
        self._cut_after_bytes = cut_after_bytes
        self._connections = set()
        self.cuts = 0
        self.address = ""

    @asynccontextmanager
    async def listening(self):
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = "{}:{}".format(*server.sockets[0].getsockname())
        async with server:
            yield self
            server.close()
            for connection in list(self._connections):
                connection.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    def heal(self):
        """Cut nothing from now on."""
        self._cut_after_bytes = None

    async def _serve(self, reader, writer):
        connection = asyncio.current_task()
        self._connections.add(connection)
        ends = [writer]
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection(*self._target)
            ends.append(upstream_writer)
            budget = [self._random.expovariate(1 / self._cut_after_bytes)] if self._cut_after_bytes else [float("inf")]
            pumps = [
                asyncio.create_task(self._pump(reader, upstream_writer, budget)),
                asyncio.create_task(self._pump(upstream_reader, writer, budget)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            pass  # the server is not there, or has hung up
        finally:
            for end in ends:
                end.transport.abort()  # a cut is a reset: both ends see it at once
            self._connections.discard(connection)

    async def _pump(self, reader, writer, budget):
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                if self._delay_s:
                    await asyncio.sleep(self._random.uniform(self._least_delay_s, self._delay_s))
                for start in range(0, len(data), self._slice_bytes):
                    piece = data[start : start + self._slice_bytes]
                    writer.write(piece)
                    await writer.drain()
                    budget[0] -= len(piece)
                    if budget[0] <= 0 and self._cut_after_bytes:
                        self.cuts += 1
                        return

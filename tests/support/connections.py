"""Connections within the test's own process, and a relay that decides which port the server sees."""

import asyncio
import socket
import struct
from contextlib import asynccontextmanager, contextmanager, suppress

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close at once, so that the port is free again


@contextmanager
def connection(host):
    """An accepted connection: its name for gRPC, the accepted socket and the client's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with (
        socket.create_server((host, 0), family=family) as listener,
        socket.create_connection(listener.getsockname()[:2]) as client,
    ):
        accepted, _ = listener.accept()
        with accepted:
            yield name_of(client), accepted, client


def name_of(client):
    """What gRPC calls the peer at this end of a connection."""
    host, port = client.getsockname()[:2]
    return f"ipv6:%5B{host}%5D:{port}" if ":" in host else f"ipv4:{host}:{port}"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Relay:
    """Passes one connection on to a server, from a port of its own, and the next one from the same port."""

    def __init__(self, target):
        host, _, port = target.rpartition(":")
        self.address = ""
        self._target = (host, int(port))
        self._port = free_port()
        self._passing = None

    @asynccontextmanager
    async def listening(self):
        server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        self.address = "{}:{}".format(*server.sockets[0].getsockname())
        async with server:
            yield self
            await self.drop()

    async def drop(self):
        """End the connection, at both ends."""
        passing, self._passing = self._passing, None
        for task in passing or ():
            task.cancel()
        await asyncio.gather(*(passing or ()), return_exceptions=True)

    async def _pass_on(self, reader, writer):
        there = socket.socket()
        there.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        there.bind(("127.0.0.1", self._port))
        there.setblocking(False)
        await asyncio.get_running_loop().sock_connect(there, self._target)
        back, forth = await asyncio.open_connection(sock=there)
        self._passing = [asyncio.create_task(_pump(reader, forth)), asyncio.create_task(_pump(back, writer))]


async def _pump(reader, writer):
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()

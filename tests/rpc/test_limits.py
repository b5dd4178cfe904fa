"""Limits of connections: their purpose, tried on a real server."""

import asyncio
import contextlib
import os
import stat
import struct

import grpc
import numpy as np
import pytest

from forebay_server.service.clock import MonotonicClock
from forebay_server.service.frontend import server as server_module
from forebay_server.service.frontend.housekeeping import Housekeeping
from forebay_server.service.frontend.server import AddressError
from tests.support.inference import request_of
from tests.support.loops import on_loop
from tests.support.real_server import RawStream, eventually, real_server, row, simulated

OWN_CONNECTION = ("grpc.use_local_subchannel_pool", 1)


class Cable:
    """A TCP connection to the server that can be pulled out: no byte passes any more, and no end is notified."""

    def __init__(self, address):
        self._host, _, self._port = address.rpartition(":")
        self._is_pulled = False
        self._writers = []
        self._tasks = set()

    @contextlib.asynccontextmanager
    async def plugged(self):
        server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        try:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            for writer in self._writers:
                writer.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def pull(self):
        self._is_pulled = True

    async def _connect(self, reader, writer):
        upstream_reader, upstream_writer = await asyncio.open_connection(self._host, int(self._port))
        self._writers += [writer, upstream_writer]
        for source, sink in [(reader, upstream_writer), (upstream_reader, writer)]:
            self._tasks.add(asyncio.create_task(self._pump(source, sink)))

    async def _pump(self, source, sink):
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                if not self._is_pulled:
                    sink.write(data)


@on_loop
async def test_a_client_that_vanished_without_a_word_is_found_by_keepalive(tmp_path):
    keepalive = {"keepalive_time_s": 1, "keepalive_timeout_s": 0.2}
    async with real_server(simulated(tmp_path), **keepalive) as running:
        cable = Cable(running.address)
        async with (
            cable.plugged() as address,
            grpc.aio.insecure_channel(address, options=[OWN_CONNECTION]) as channel,
        ):
            stream = RawStream(channel)
            await stream.send_open()
            await stream.receive()
            cable.pull()
            await eventually(lambda: not running.server.frames.streams)


@pytest.mark.parametrize("opening", [b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00"])
@on_loop
async def test_a_connection_that_says_nothing_is_closed(tmp_path, opening, monkeypatch):
    monkeypatch.setattr(server_module, "HANDSHAKE_TIMEOUT_S", 0.2)
    async with real_server(simulated(tmp_path)) as running:
        reader, writer = await asyncio.open_connection(*running.address.rsplit(":", 1))
        writer.write(opening)
        await reader.read()  # to its end
        writer.close()
        stream = await running.open()
        await stream.half_close()
        await stream.drain()


async def ping(address, count):
    """Ping a server, on a connection without calls, each time it has answered; return why it hung up, None if not."""
    settings, ping, goaway, is_answer = 4, 6, 7, 1
    reader, writer = await asyncio.open_connection(*address.rsplit(":", 1))
    frame = struct.Struct(">xHBBxxxx")  # length, type, flags; of no stream
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame.pack(0, settings, 0))
    writer.write(frame.pack(8, ping, 0) + bytes(8))
    reason = None
    while count and reason is None:
        length, kind, flags = frame.unpack(await reader.readexactly(frame.size))
        payload = await reader.readexactly(length)
        if (kind, flags) == (ping, is_answer):
            writer.write(frame.pack(8, ping, 0) + bytes(8))
            count -= 1
        elif kind == goaway:
            reason = payload[8:]  # after the last stream and the code
    writer.close()
    return reason


@on_loop
async def test_a_client_that_pings_too_often_is_cut(tmp_path):
    async with real_server(simulated(tmp_path)) as running:
        assert await ping(running.address, 20) == b"too_many_pings"


@on_loop
async def test_a_client_that_pings_as_often_as_it_may_is_not_taken_for_an_attacker(tmp_path):
    async with real_server(simulated(tmp_path), min_client_ping_interval_s=0) as running:
        assert await ping(running.address, 20) is None


@on_loop
async def test_streams_beyond_the_limit_of_a_connection_wait_for_their_turn(tmp_path):
    async with real_server(simulated(tmp_path), max_streams_per_connection=2) as running:
        first, second = await running.open(), await running.open()
        third = running.stream()
        opening = asyncio.create_task(third.send_open())
        await first.send(1)
        await first.results(1)  # on the same connection, after the third was to be opened
        assert len(running.server.frames.streams) == 2
        await first.half_close()
        await first.drain()
        await opening
        assert (await third.receive()).WhichOneof("message") == "opened"
        assert len(running.server.frames.streams) == 2
        for stream in (second, third):
            await stream.half_close()
            await stream.drain()


@on_loop
async def test_requests_beyond_the_limit_of_a_connection_wait_for_their_turn(tmp_path):
    """Also while gRPC has not freed those that were answered: it took them for open, and refused the next ones."""
    data = request_of("sim", input=np.zeros((1, 64), np.uint8)).SerializeToString()
    async with real_server(simulated(tmp_path, alpha_ms=0, beta_ms=0), max_streams_per_connection=8) as running:
        infer = running.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

        async def one_after_the_other():
            for _ in range(10):
                await infer(data)

        await asyncio.gather(*(one_after_the_other() for _ in range(32)))


@on_loop
async def test_a_call_with_too_much_metadata_is_refused(tmp_path):
    async with real_server(simulated(tmp_path), max_metadata_bytes=1024) as running:
        stream = RawStream(running.channel, metadata=(("note", "x" * 2000),))
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await stream.send_open()
        code, _ = await stream.status()
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


@on_loop
async def test_a_message_that_is_too_large_ends_its_stream(tmp_path):
    async with real_server(simulated(tmp_path), max_message_bytes=2048) as running:
        stream = await running.open()
        await stream.send(1, row(1) * 100)
        code, _ = await stream.status()
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


@on_loop
async def test_the_unix_socket_is_for_the_group_and_serves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path.relative_to(tmp_path) / "run" / "s"
    async with real_server(simulated(tmp_path / "models"), uds=path) as running:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
            stream = RawStream(channel)
            await stream.send_open()
            assert (await stream.receive()).WhichOneof("message") == "opened"
            await stream.half_close()
            await stream.drain()
        with pytest.raises(AddressError, match="a server answers there"):
            async with real_server(simulated(tmp_path / "others"), uds=path, is_checked=False):
                pass
        assert path.exists()
        assert running.server.frames.frames_received == 0
    assert not path.exists()


@pytest.mark.one_process("the parent of front-end processes holds their port: tests/rpc/test_front_ends.py")
@on_loop
async def test_a_port_in_use_is_one_line(tmp_path):
    async with real_server(simulated(tmp_path / "models")) as running:
        with pytest.raises(AddressError, match="is it in use") as refused:
            async with real_server(simulated(tmp_path / "others"), address=running.address, is_checked=False):
                pass
        assert os.linesep not in str(refused.value)


@pytest.mark.one_process("the parent of front-end processes holds their port: tests/rpc/test_front_ends.py")
@on_loop
async def test_an_address_that_is_not_of_this_machine_is_not_called_in_use(tmp_path):
    with pytest.raises(AddressError, match=r"192\.0\.2\.1:0: Cannot assign requested address; give another --address"):
        async with real_server(simulated(tmp_path), address="192.0.2.1:0", insecure=True, is_checked=False):
            pass


class ClockThatFailsOnce(MonotonicClock):
    asked = 0

    def now_ns(self):
        self.asked += 1
        if self.asked == 1:
            raise OSError("once")
        return super().now_ns()


@on_loop
async def test_streams_are_looked_after_again_when_that_failed_once(tmp_path):
    async with real_server(simulated(tmp_path)) as running:
        server, clock = running.server, ClockThatFailsOnce()
        housekeeping = Housekeeping(server.front_end._streams.open, clock, server.settings)
        task = asyncio.create_task(housekeeping.run(0))
        await eventually(lambda: clock.asked > 1)
        assert not task.done()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

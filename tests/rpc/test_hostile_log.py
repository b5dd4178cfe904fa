"""Clients that make gRPC's own log print: no text of theirs comes raw to standard error, and no thread waits for it."""

import asyncio
import json
import os
import struct

import grpc
import pytest

from forebay.wire import frames_pb2 as pb
from tests.support.broken_output import broken
from tests.support.loops import on_loop
from tests.support.real_server import RawStream, simulated
from tests.support.serve_process import serve

FORGED = b'\n{"event": "forged"}\n\x1b[2J\x9b'
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))  # and SETTINGS
BAD_SCHEME = b"\x06\x03foo"  # a header in HPACK: the name is number 6 of the static table
STREAMS = 3000
PONG = b"\x00\x00\x08\x06\x01"


def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def goaway(code, text):
    return PREFACE + frame(7, 0, 0, struct.pack(">II", 0, code) + text)


async def send(address, data):
    """Send to a server; return when a ping that follows is answered, or the connection is closed."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(data + frame(6, 0, 0, bytes(8)))
    found = b""
    try:
        while PONG not in found and (read := await reader.read(65536)):
            found = (found + read)[-1 << 20 :]
    except ConnectionError:
        pass
    finally:
        writer.close()


async def answered(address):
    async with grpc.aio.insecure_channel(address) as channel:
        stream = RawStream(channel)
        await stream.send_open()
        await stream.send(1)
        await stream.half_close()
        return [result.status.code for result in await stream.results()]


@pytest.mark.parametrize("verbosity", ["", "INFO"])
@on_loop
async def test_the_text_of_a_goaway_forges_no_line_and_moves_no_cursor(tmp_path, verbosity):
    environment = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
    environment |= {"GRPC_VERBOSITY": verbosity} if verbosity else {}
    async with serve("--model-repository", simulated(tmp_path), environment=environment) as server:
        address = await server.wait_ready()
        for code in (2, 11):
            await send(address, goaway(code, FORGED))
        assert await answered(address) == [pb.STATUS_OK]
        assert await server.end() == 0
    assert "\x1b" not in server.errors
    events = [json.loads(line) for line in server.errors.splitlines()]
    assert "forged" not in {event["event"] for event in events}
    assert any("forged" in event.get("detail", "") for event in events) == bool(verbosity)


@on_loop
async def test_a_client_that_makes_grpc_print_holds_up_nobody_where_the_log_is_not_read(tmp_path):
    headers = b"".join(frame(1, 5, 2 * number + 1, BAD_SCHEME) for number in range(STREAMS))
    with broken("reader takes nothing") as descriptor:
        async with serve("--model-repository", simulated(tmp_path), stderr=descriptor) as server:
            address = await server.wait_ready()
            await send(address, PREFACE + headers)
            assert await answered(address) == [pb.STATUS_OK]
            assert await server.end() == 0

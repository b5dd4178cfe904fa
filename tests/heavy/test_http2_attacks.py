"""Attacks on HTTP/2 while a camera streams beside them: it gets every answer, memory stays, the server ends with 0."""

import asyncio
import contextlib
import struct

import grpc
import psutil
import pytest

from forebay.wire import frames_pb2 as pb
from tests.support import http2 as h
from tests.support.real_server import RawStream, row, simulated
from tests.support.serve_process import serve

CONNECTIONS = 4
MEMORY_BYTES = 256 << 20
LONGEST_S = 5.0  # of one attack: a server that hangs up ends it sooner
START = h.PREFACE + h.frame(h.SETTINGS)


def rapid_reset(n):
    """CVE-2023-44487: open streams and cancel them at once."""
    for index in range(n):
        stream = 2 * index + 1
        yield h.frame(h.HEADERS, h.END_HEADERS, stream, h.call())
        yield h.frame(h.RST_STREAM, 0, stream, struct.pack(">I", h.CANCEL))


def made_you_reset(n):
    """CVE-2025-8671: let the server cancel them, by a window update of nothing."""
    for index in range(n):
        stream = 2 * index + 1
        yield h.frame(h.HEADERS, h.END_HEADERS, stream, h.call())
        yield h.frame(h.WINDOW_UPDATE, 0, stream, struct.pack(">I", 0))


def continuation_flood(n):
    """CVE-2024-27316: headers that never end."""
    yield h.frame(h.HEADERS, 0, 1, h.call())
    for index in range(n):
        yield h.frame(h.CONTINUATION, 0, 1, h.field(f"x-{index}", "y" * 200))


def empty_continuations(n):
    yield h.frame(h.HEADERS, 0, 1, h.call())
    yield from (h.frame(h.CONTINUATION, 0, 1) for _ in range(n))


def header_table_bomb(n):
    """A field of 4,000 bytes is kept in the table once and then named by one byte, thousands of times a call."""
    for index in range(n // 100):
        stream = 2 * index + 1
        bomb = h.indexed_field("x-a", "y" * 4000) if index == 0 else b""
        yield h.frame(h.HEADERS, h.END_HEADERS | h.END_STREAM, stream, h.call() + bomb + b"\xbe" * 4000)


def ping_flood(n):
    """CVE-2019-9512."""
    yield from (h.frame(h.PING, 0, 0, bytes(8)) for _ in range(n))


def settings_flood(n):
    """CVE-2019-9515."""
    yield from (h.frame(h.SETTINGS, 0, 0, struct.pack(">HI", 4, 65_535)) for _ in range(n))


def empty_data_flood(n):
    """CVE-2019-9518."""
    yield h.frame(h.HEADERS, h.END_HEADERS, 1, h.call())
    yield from (h.frame(h.DATA, 0, 1) for _ in range(n))


def priority_flood(n):
    """CVE-2019-9513."""
    yield from (h.frame(h.PRIORITY, 0, 1 + 2 * (index % 99), struct.pack(">IB", 0, 1)) for index in range(n))


def window_of_one(n):
    """CVE-2019-9517: open streams, and read no answers."""
    yield h.frame(h.SETTINGS, 0, 0, struct.pack(">HI", 4, 1))
    for index in range(n // 100):
        stream = 2 * index + 1
        opened = pb.ClientMessage(open=pb.Open(model="sim", stream_id="x", encoding=pb.ENCODING_TENSOR))
        frames = b"".join(
            h.message(pb.ClientMessage(frame=pb.Frame(seq=seq, payload=row(seq))).SerializeToString())
            for seq in range(1, 20)
        )
        yield h.frame(h.HEADERS, h.END_HEADERS, stream, h.call())
        yield h.frame(h.DATA, 0, stream, h.message(opened.SerializeToString()) + frames)


def window_overflow(n):
    yield from (h.frame(h.WINDOW_UPDATE, 0, 0, struct.pack(">I", (1 << 31) - 1)) for _ in range(n))


def promises(n):
    yield from (h.frame(h.PUSH_PROMISE, h.END_HEADERS, 1, struct.pack(">I", 2) + h.call()) for _ in range(n))


def goaway_flood(n):
    yield from (h.frame(h.GOAWAY, 0, 0, struct.pack(">II", 0, 0) + b"x" * 64) for _ in range(n))


def unknown_frames(n):
    yield from (h.frame(0xEE, 0xFF, 0, bytes(100)) for _ in range(n))


def bytes_at_a_time(n):
    """A message of 16 MB announced, and sent byte by byte."""
    yield h.frame(h.HEADERS, h.END_HEADERS, 1, h.call())
    yield h.frame(h.DATA, 0, 1, h.message(b"", length=16 << 20))
    yield from (h.frame(h.DATA, 0, 1, b"x") for _ in range(min(n, 5000)))


def lying_lengths(n):
    """Messages of 4 GB announced, and none sent."""
    for index in range(n // 100):
        stream = 2 * index + 1
        yield h.frame(h.HEADERS, h.END_HEADERS, stream, h.call())
        yield h.frame(h.DATA, h.END_STREAM, stream, h.message(b"", length=(1 << 32) - 1))


def unknown_calls(n):
    for index in range(n // 10):
        path = "/nobody/knows" if index % 2 else "/" + "a" * 1000
        yield h.frame(h.HEADERS, h.END_HEADERS | h.END_STREAM, 2 * index + 1, h.call(path))


def streams_backwards(n):
    yield from (h.frame(h.HEADERS, h.END_HEADERS, 2 * (n - index) + 1, h.call()) for index in range(n))


def frames_too_large(n):
    for _ in range(n // 1000):
        yield (1 << 24).to_bytes(4, "big")[1:] + struct.pack(">BBI", h.DATA, 0, 1) + bytes(1 << 16)


def garbage(n):
    yield bytes(range(256)) * n


ATTACKS = (
    rapid_reset,
    made_you_reset,
    continuation_flood,
    empty_continuations,
    header_table_bomb,
    ping_flood,
    settings_flood,
    empty_data_flood,
    priority_flood,
    window_of_one,
    window_overflow,
    promises,
    goaway_flood,
    unknown_frames,
    bytes_at_a_time,
    lying_lengths,
    unknown_calls,
    streams_backwards,
    frames_too_large,
    garbage,
)
FRAMES = 20_000


async def attack(address, frames):
    """Send frames and read the answers until all are sent or the server hangs up; return the number of sent frames."""
    reader, writer = await asyncio.open_connection(*address.rsplit(":", 1))

    async def take():
        with contextlib.suppress(OSError):
            while await reader.read(65_536):
                pass

    taking = asyncio.create_task(take())
    sent = 0
    try:
        async with asyncio.timeout(LONGEST_S):
            writer.write(START)
            for each in frames:
                writer.write(each)
                sent += 1
                if sent % 50 == 0:
                    await writer.drain()
                    await asyncio.sleep(0)  # the camera runs
            await writer.drain()
    except (OSError, TimeoutError):
        pass  # it has hung up, or takes nothing more
    finally:
        writer.transport.abort()
        await taking
    return sent


async def camera(channel, is_over):
    """Stream until the attack is over, and every frame is answered OK; how many they were."""
    stream = RawStream(channel)
    await stream.send_open(stream_id="camera")
    seq = 0
    while not is_over.is_set() or seq < 100:
        seq += 1
        await stream.send(seq)
        result = await stream.result()
        assert (result.seq, result.status.code) == (seq, pb.STATUS_OK), result
    await stream.half_close()
    await stream.drain()
    assert await stream.call.code() is grpc.StatusCode.OK
    return seq


@pytest.mark.parametrize("name", [attack.__name__ for attack in ATTACKS])
def test_a_camera_gets_every_answer_beside_an_attack(tmp_path, name):
    make = next(each for each in ATTACKS if each.__name__ == name)

    async def run():
        async with serve("--model-repository", simulated(tmp_path / "models")) as server:
            address = await server.wait_ready()
            process = psutil.Process(server.process.pid)
            async with grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
                is_over = asyncio.Event()
                streaming = asyncio.create_task(camera(channel, is_over))
                before = process.memory_info().rss
                sent = await asyncio.gather(*(attack(address, make(FRAMES)) for _ in range(CONNECTIONS)))
                grown = process.memory_info().rss - before
                is_over.set()
                answered = await streaming
            assert await server.end() == 0, server.errors
        assert "Traceback" not in server.errors, server.errors
        assert len(server.errors) < 1 << 20, "the log is the client's to fill"
        assert grown < MEMORY_BYTES
        return sum(sent), answered, grown

    sent, answered, grown = asyncio.run(run())
    print(f"{name}: {sent} frames sent, {answered} answers beside them, memory {grown >> 20} MB")  # noqa: T201

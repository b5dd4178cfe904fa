"""Ten cameras beside a stream that floods the server with small frames: every frame of both has one answer, in order.

How long the cameras wait is measured by `python -m forebay_server.bench.floods`, not here.
"""

import asyncio

import grpc
import pytest

from forebay.wire import frames_pb2 as pb
from tests.support.loops import on_loop
from tests.support.real_server import ROW_BYTES, RawStream, simulated
from tests.support.serve_process import serve

CAMERAS = 10
FLOOD_FRAMES = 2_000
MOST_BETWEEN = 150
"""Answers to the flood for one of each camera: 11 to 27 were seen, and a client that waits delays both alike."""
ALONE = [("grpc.use_local_subchannel_pool", 1)]
LATE = {pb.STATUS_EXPIRED, pb.STATUS_OVERLOADED}
"""Of the flood's own frames, on a machine that stood still for longer than their budget."""
LATEST = {"delivery": pb.DELIVERY_LATEST, "max_in_flight": 16}


async def opened(channel, **fields):
    stream = RawStream(channel)
    await stream.send_open(**fields)
    assert (await stream.receive()).WhichOneof("message") == "opened"
    return stream


async def flood(stream, payload):
    """Send all frames as fast as the connection takes them; the codes of the answers, which come in order."""

    async def send():
        for seq in range(1, FLOOD_FRAMES + 1):
            await stream.send(seq, payload)
        await stream.half_close()

    sending = asyncio.create_task(send())
    results = await stream.results()
    await sending
    assert [result.seq for result in results] == list(range(1, FLOOD_FRAMES + 1))
    return {result.status.code for result in results}


async def camera(stream, first, is_over):
    """Send frame by frame until `is_over`, and check every answer; the number of frames."""
    seq = 0
    while not is_over.is_set():
        seq += 1
        await stream.send(seq)
        result = await stream.result()
        assert (result.seq, result.status.code) == (seq, pb.STATUS_OK)
        first.set()
    await stream.half_close()
    assert await stream.result() is None
    return seq


@pytest.mark.parametrize(
    ("fields", "payload_bytes", "codes"),
    [
        ({"max_in_flight": 16}, ROW_BYTES, {pb.STATUS_OK}),
        ({"max_in_flight": 256}, ROW_BYTES, {pb.STATUS_OK}),
        (LATEST, ROW_BYTES, {pb.STATUS_OK, pb.STATUS_SUPERSEDED}),
        ({"max_in_flight": 16}, 16, {pb.STATUS_INVALID}),
    ],
    ids=["in order, window 16", "in order, window 256", "replacing each other", "refused"],
)
@on_loop
async def test_a_flood_of_small_frames_and_ten_cameras_get_one_answer_for_each_frame(
    tmp_path, fields, payload_bytes, codes
):
    root = simulated(tmp_path, max_batch_size=32, alpha_ms=3, beta_ms=0.2)  # the engine is fast: the front end decides
    async with serve("--model-repository", root) as server:
        address = await server.wait_ready()
        async with (
            grpc.aio.insecure_channel(address, ALONE) as ordinary,
            grpc.aio.insecure_channel(address, ALONE) as hostile,
        ):
            is_over, first = asyncio.Event(), [asyncio.Event() for _ in range(CAMERAS)]
            cameras = [
                asyncio.create_task(camera(await opened(ordinary, stream_id=f"camera-{n}"), event, is_over))
                for n, event in enumerate(first)
            ]
            await asyncio.gather(*(event.wait() for event in first))  # whose needs are known is refused nothing
            answers = await flood(await opened(hostile, stream_id="flood", **fields), bytes(payload_bytes))
            is_over.set()
            frames = await asyncio.gather(*cameras)
        assert await server.end() == 0, server.errors
    assert codes <= answers <= codes | LATE
    assert min(frames) >= FLOOD_FRAMES / MOST_BETWEEN
    assert min(frames) >= max(frames) / 2

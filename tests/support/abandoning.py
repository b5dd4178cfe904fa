"""Streams that are opened and left at every stage of their life."""

import asyncio
import itertools
from contextlib import suppress

import grpc

from tests.support.real_server import ROW_BYTES, RawStream

STAGES = ("nothing sent", "Open sent", "opened", "frame under way", "frames under way", "half-closed", "answers unread")
LEAVES = ("cancel", "close", "forget")
AT_ONCE = 20


async def _bring_to(stage, stream, row_bytes):
    if stage == "nothing sent":
        return
    await stream.send_open(max_in_flight=8)
    if stage == "Open sent":
        return
    await stream.receive()
    frames = {"opened": 0, "frame under way": 1}.get(stage, 6)
    for seq in range(1, frames + 1):
        await stream.send(seq, bytes(row_bytes))
    if stage == "half-closed":
        await stream.half_close()
    if stage == "answers unread":
        await stream.result()  # the first one; the others are there or on their way


async def _abandon(address, stage, leave, row_bytes):
    channel = grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
    try:
        stream = RawStream(channel)
        await _bring_to(stage, stream, row_bytes)
        if leave == "cancel":
            stream.call.cancel()
            with suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
                await stream.receive()
        elif leave == "forget":
            del stream
    finally:
        await channel.close()


async def abandon(address, count, row_bytes=ROW_BYTES):
    """Open and leave `count` streams, every stage and every way of leaving in turn, each on a connection of its own."""
    ways = itertools.cycle(itertools.product(STAGES, LEAVES))
    todo = [next(ways) for _ in range(count)]

    async def work():
        while todo:
            await _abandon(address, *todo.pop(), row_bytes)

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))

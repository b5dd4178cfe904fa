"""Streams of a front-end process that has too many are asked to go to the others."""

import asyncio
import contextlib
import os
import signal

import numpy as np
import psutil

import forebay.aio
from forebay.wire import frames_pb2 as pb
from tests.rpc.test_front_end_stopped import connection_count
from tests.rpc.test_front_ends import flags, pids, requests_of
from tests.rpc.test_inference_statistics import get, samples
from tests.support.guard import HANG_GUARD_S
from tests.support.loops import on_loop
from tests.support.real_server import ROW_BYTES, eventually, real_server, simulated
from tests.support.serve_process import serve

CLIENTS = 16  # that a fair deal leaves one of two processes without any is a matter of 2^-15
ROW = np.zeros(ROW_BYTES, np.uint8)


@on_loop
async def test_the_streams_that_are_asked_are_open_and_were_not_asked_before(tmp_path):
    async with real_server(simulated(tmp_path), admin_address="127.0.0.1:0") as running:
        frames = running.server.frames
        streams = [await running.open(model="sim") for _ in range(3)]
        assert frames.movable_count == 3
        frames.rebalance(2, 5000)
        assert frames.movable_count == 1
        assert frames.leaving_count == 2
        frames.rebalance(5, 5000)
        assert (frames.movable_count, frames.leaving_count) == (0, 3)
        for stream in streams:
            message = await stream.receive()
            assert message.reconnect == pb.Reconnect(reason=pb.Reconnect.REASON_REBALANCE, grace_ms=5000)
            await stream.half_close()
            assert await stream.results() == []
        await eventually(lambda: frames.leaving_count == 0)

        async def counted():
            _, text = await get(running.server.admin_address)
            return samples(text)['forebay_streams_asked_to_leave_total{why="uneven"}']

        async with asyncio.timeout(HANG_GUARD_S):
            while await counted() != 3:
                await asyncio.sleep(0.01)


@on_loop
async def test_after_a_death_streams_come_to_the_process_that_took_its_place(tmp_path):
    arguments, environment = flags(tmp_path)
    async with serve(*arguments, environment=environment) as server, contextlib.AsyncExitStack() as stack:
        address = await server.wait_ready()
        parent, before = psutil.Process(server.process.pid), server.ready
        streams = []
        for number in range(CLIENTS):
            client = await stack.enter_async_context(forebay.aio.Client(address))
            stream = client.stream(f"camera {number}", model="sim", encoding="tensor", delivery="every")
            streams.append(await stack.enter_async_context(stream))
            await stream.send(ROW)
            assert (await stream.receive()).is_ok
        dead, left = pids(before, "front-end")
        old = {child.pid for child in parent.children()}  # the one that forks front-end processes too
        os.kill(dead, signal.SIGKILL)
        await eventually(lambda: {child.pid for child in parent.children()} - old)
        (new,) = {child.pid for child in parent.children()} - old
        await eventually(lambda: connection_count(new) >= 2)
        for stream in streams:
            await stream.send(ROW)
            assert (await stream.receive()).is_ok
        async with asyncio.timeout(HANG_GUARD_S):  # the one that died may not have told its last ones
            while await asyncio.to_thread(requests_of, before) < CLIENTS:
                await asyncio.sleep(0.01)
        assert connection_count(left) > 0
        await stack.aclose()
        assert await server.end() == 0

"""A front-end process that is stopped (SIGSTOP) holds up neither the engine process nor the other front-end process."""

import asyncio
import contextlib
import os
import signal

import numpy as np
import psutil

import forebay.aio
from tests.rpc.test_front_ends import flags, pids
from tests.support.loops import on_loop
from tests.support.real_server import ROW_BYTES
from tests.support.serve_process import serve

CLIENTS = 16  # that all meet one of two is a matter of 2^-15
FRAMES = 20  # in flight on each stream


def connection_count(pid):
    """Connections of clients that a process has accepted."""
    return sum(each.status == psutil.CONN_ESTABLISHED for each in psutil.Process(pid).net_connections("tcp"))


async def answers(stream, count):
    return [await stream.receive() for _ in range(count)]


@on_loop
async def test_streams_of_other_processes_go_on_and_its_own_when_it_does(tmp_path):
    arguments, environment = flags(tmp_path)
    environment["FOREBAY_PERMITS"] = str(2 * CLIENTS * FRAMES)
    row = np.zeros(ROW_BYTES, np.uint8)
    async with serve(*arguments, environment=environment) as server, contextlib.AsyncExitStack() as stack:
        address = await server.wait_ready()
        front_ends = pids(server.ready, "front-end")
        streams = []
        for number in range(CLIENTS):
            client = await stack.enter_async_context(forebay.aio.Client(address))
            stream = client.stream(
                f"camera {number}", model="sim", encoding="tensor", delivery="every", max_in_flight=FRAMES + 1
            )
            streams.append(await stack.enter_async_context(stream))
        counts = [connection_count(pid) for pid in front_ends]
        assert sum(counts) == CLIENTS
        for stream in streams:
            await stream.send(row)
        assert all(result.is_ok for (result,) in [await answers(stream, 1) for stream in streams])
        os.kill(front_ends[0], signal.SIGSTOP)
        try:
            for stream in streams:
                for _ in range(FRAMES):
                    await stream.send(row)
            tasks = [asyncio.create_task(answers(stream, FRAMES)) for stream in streams]
            answered = asyncio.as_completed(tasks)
            for _ in range(counts[1]):
                await next(answered)
        finally:
            os.kill(front_ends[0], signal.SIGCONT)
        results = await asyncio.gather(*tasks)
        assert all(result.is_ok for each in results for result in each)
        await stack.aclose()
        assert await server.end() == 0

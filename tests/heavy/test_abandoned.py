"""A thousand streams, abandoned at every stage of their life, three times over: the server is as it was before."""

import asyncio

import psutil
import pytest

from tests.support.abandoning import abandon
from tests.support.guard import HANG_GUARD_S
from tests.support.real_server import simulated
from tests.support.supervised import served

COUNT = 1000
WARM_UP_COUNT = 50
GRPC_THREADS = 2  # of its pool, which come and go
ROW_BYTES = 4096  # small beside the memory of a stream itself: buffers kept for frames come and go by megabytes
MOST_GROWTH_BYTES = 5 << 20


async def settled(server, most_threads, most_descriptors):
    """Wait until threads and descriptors are back, and return (threads, descriptors, memory of its own)."""
    async with asyncio.timeout(HANG_GUARD_S):
        while server.num_threads() > most_threads or server.num_fds() > most_descriptors:
            await asyncio.sleep(0.1)
    return server.num_threads(), server.num_fds(), server.memory_full_info().uss


@pytest.mark.slow
def test_three_thousand_abandoned_streams_leave_nothing(tmp_path, record_property):
    repository = simulated(tmp_path / "models", alpha_ms=1, input_bytes=ROW_BYTES)
    with served("--address", "127.0.0.1:0", "--model-repository", repository) as running:
        ready = running.wait_ready()
        server = psutil.Process(ready["pid"])

        async def run():
            await abandon(ready["address"], WARM_UP_COUNT, ROW_BYTES)  # gRPC starts threads when first needed
            threads, descriptors = server.num_threads(), server.num_fds()
            rounds = []
            for _ in range(3):
                await abandon(ready["address"], COUNT, ROW_BYTES)
                rounds.append(await settled(server, threads + GRPC_THREADS, descriptors))
            return rounds

        rounds = asyncio.run(run())
    record_property("rounds", rounds)
    print("threads, descriptors, own MB:", [(a, b, round(uss / (1 << 20), 1)) for a, b, uss in rounds])  # noqa: T201
    assert rounds[2][2] - rounds[1][2] <= MOST_GROWTH_BYTES

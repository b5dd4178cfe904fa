"""Twenty clients that send and never read: the others are served, memory is bounded, and they are cut."""

import asyncio
import itertools
import statistics
from contextlib import suppress

import grpc
import psutil
import pytest

from forebay.wire import frames_pb2 as pb
from tests.support.guard import HANG_GUARD_S
from tests.support.real_server import RawStream, simulated
from tests.support.supervised import served

pytestmark = pytest.mark.alone

ROW_BYTES = 65_536
SLOW = 20
GOOD = 4
FPS = 25
PHASE_S = 3.0
PHASES = 3  # of each kind, in turn: other work on the machine disturbs both
WRITE_DEADLINE_S = 2.0
MOST_RATIO = 10.0  # a guard: on a machine that does nothing else it is about 1
# The second is grpc.aio's own word on the client's side, where a write was under way when its stream was cut.
CUT = {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL}
# windows of frames in hand, and for each client the bytes that HTTP/2 lets it send unasked
MOST_GROWTH_BYTES = 224 << 20
# Nothing that a cut stream leaves waits for Python's collector of cycles. Over eight phases the growth was 118 to 150
# MB, of which the first phase took 129: buffers of gRPC's and of malloc's, which come and go by tens of megabytes.
MOST_GROWTH_AGAIN_BYTES = 64 << 20
NARROW = [("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0)]


async def opened(channel, name, **fields):
    stream = RawStream(channel)
    await stream.send_open(stream_id=name, outputs=[pb.OUTPUT_TENSORS], max_in_flight=16, **fields)
    await stream.receive()
    return stream


async def good_client(address, name, round_trips_ms):
    """A camera that reads its results; adds the round trip of every frame, counted from its due time."""
    loop = asyncio.get_running_loop()
    async with grpc.aio.insecure_channel(address, options=NARROW) as channel:
        stream = await opened(channel, name)
        due = {}

        async def read():
            async for seq in _seqs(stream):
                assert seq == min(due)  # in order, and each once
                round_trips_ms.append((loop.time() - due.pop(seq)) * 1e3)

        reading = asyncio.create_task(read())
        start = loop.time()
        for seq in range(1, int(FPS * PHASE_S)):
            due[seq] = start + seq / FPS
            await asyncio.sleep(max(0.0, due[seq] - loop.time()))
            await stream.send(seq, bytes(ROW_BYTES))
        await stream.half_close()
        await reading
        assert not due


async def _seqs(stream):
    while (result := await stream.result()) is not None:
        yield result.seq


async def slow_client(address, name, ends):
    """Sends as fast as it may and reads nothing until it is cut."""
    async with grpc.aio.insecure_channel(address, options=NARROW) as channel:
        stream = await opened(channel, name)

        async def send():
            for seq in itertools.count(1):
                await stream.send(seq, bytes(ROW_BYTES))

        sending = asyncio.create_task(send())
        await asyncio.sleep(PHASE_S)
        await asyncio.wait([sending], timeout=HANG_GUARD_S)  # on a busy machine, the cut takes longer than a phase
        sending.cancel()
        ends.append(await stream.status())
        with suppress(grpc.aio.AioRpcError, asyncio.CancelledError, asyncio.InvalidStateError):
            await sending


async def phase(address, slow_count):
    """p99 of the good clients while `slow_count` others read nothing, and how those ended."""
    round_trips_ms, ends = [], []
    slow = [asyncio.create_task(slow_client(address, f"slow-{number}", ends)) for number in range(slow_count)]
    await asyncio.sleep(0.5 if slow else 0)
    await asyncio.gather(*(good_client(address, f"good-{number}", round_trips_ms) for number in range(GOOD)))
    await asyncio.gather(*slow, return_exceptions=True)
    return statistics.quantiles(round_trips_ms, n=100)[98], ends


@pytest.mark.slow
def test_twenty_clients_that_never_read_hurt_nobody(tmp_path, record_property):
    repository = simulated(tmp_path / "models", alpha_ms=1, input_bytes=ROW_BYTES, max_batch_size=32)
    environment = {"FOREBAY_WRITE_DEADLINE_S": str(WRITE_DEADLINE_S), "FOREBAY_LOG_LEVEL": "warning"}
    with served("--address", "127.0.0.1:0", "--model-repository", repository, environment=environment) as running:
        ready = running.wait_ready()
        server = psutil.Process(ready["pid"])

        async def run():
            alone, beside, sizes = [], [], []
            await phase(ready["address"], 0)  # warm
            before = server.memory_full_info().uss
            for _ in range(PHASES):
                alone.append((await phase(ready["address"], 0))[0])
                p99_ms, ends = await phase(ready["address"], SLOW)
                beside.append(p99_ms)
                sizes.append(server.memory_full_info().uss - before)
                assert len(ends) == SLOW
                assert {code for code, _ in ends} <= CUT, ends
            return alone, beside, sizes

        alone, beside, sizes = asyncio.run(run())
    ratio = min(beside) / min(alone)  # other work on the machine only adds time, and slow readers hurt in every phase
    print(f"p99 alone {alone} ms, beside {SLOW} slow readers {beside} ms, ratio {ratio:.2f}")  # noqa: T201
    print("growth in MB:", [round(size / (1 << 20), 1) for size in sizes])  # noqa: T201
    record_property("ratio", ratio)
    assert max(sizes) <= MOST_GROWTH_BYTES
    assert sizes[-1] - sizes[-2] <= MOST_GROWTH_AGAIN_BYTES
    assert ratio <= MOST_RATIO

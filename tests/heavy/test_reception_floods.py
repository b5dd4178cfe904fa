"""A hundred connections whose messages do not end, or inflate: memory keeps its bound, a camera is served."""

import asyncio
from contextlib import asynccontextmanager

import grpc
import psutil
import pytest

from forebay.wire import frames_pb2 as pb
from forebay.wire import inference_pb2
from tests.support import http2 as h
from tests.support.bombs import Bombs, bomb
from tests.support.guard import HANG_GUARD_S
from tests.support.half_sent import HalfSent
from tests.support.loops import on_loop
from tests.support.real_server import RawStream, open_message, row, simulated
from tests.support.serve_process import serve

pytestmark = pytest.mark.alone

# With default settings it is less than 512 MB on a machine that does nothing else. Who holds the bound is a thread:
# beside other work it gets the processor late, and memory has grown meanwhile (547 MB were seen at a load of six).
# Without a bound it would be 12 GB.
MOST_BYTES = 1 << 30
MESSAGE_BYTES = 15_000_000
INFLATED_S = 3.0
INFER = "/inference.GRPCInferenceService/ModelInfer"
FRAMES = "/forebay.v1.FrameInference/Stream"
OPEN = h.message(pb.ClientMessage(open=open_message(stream_id="hostile")).SerializeToString())
WATCHED_S = 4.0  # without a bound, memory is full after two
ALONE = [("grpc.use_local_subchannel_pool", 1)]


class Memory:
    """Growth of a process's memory since its first measurement."""

    def __init__(self, pid):
        self._process = psutil.Process(pid)
        self._before = self._process.memory_info().rss
        self.peak = 0

    @property
    def growth(self):
        growth = self._process.memory_info().rss - self._before
        self.peak = max(self.peak, growth)
        return growth

    async def goes_back(self):
        """Wait until nine tenths of the growth have gone."""
        async with asyncio.timeout(HANG_GUARD_S):
            while self.growth > max(self.peak // 10, 16 << 20):
                await asyncio.sleep(0.1)


@asynccontextmanager
async def camera_on(address):
    """A stream that sends frame by frame; `answered` are those that were OK."""
    async with grpc.aio.insecure_channel(address, ALONE) as channel:
        stream = RawStream(channel)
        await stream.send_open()
        assert (await stream.receive()).WhichOneof("message") == "opened"
        answered = []

        async def run():
            for seq in range(1, 1_000_000):
                await stream.send(seq, row(seq))
                assert (await stream.result()).status.code == pb.STATUS_OK
                answered.append(seq)
                await asyncio.sleep(0.01)

        running = asyncio.create_task(run())
        yield answered
        assert not running.done(), running.exception()
        running.cancel()


@pytest.mark.parametrize(
    ("connections", "calls", "path", "first"),
    [(1, 120, INFER, b""), (100, 8, INFER, b""), (100, 4, FRAMES, b""), (100, 4, FRAMES, OPEN)],
    ids=["one connection", "requests", "streams that do not open", "open streams"],
)
@on_loop(guard_s=3 * HANG_GUARD_S)
async def test_floods_of_messages_that_do_not_end(tmp_path, connections, calls, path, first):
    async with serve("--model-repository", simulated(tmp_path)) as server:
        address = await server.wait_ready()
        memory = Memory(server.process.pid)
        async with camera_on(address) as answered:
            clients = [await HalfSent.connect(address, calls, MESSAGE_BYTES, path, first) for _ in range(connections)]
            loop = asyncio.get_running_loop()
            until_s = loop.time() + WATCHED_S
            while loop.time() < until_s or sum(client.sent.total() for client in clients) <= 30 << 20 or not answered:
                assert memory.growth <= MOST_BYTES
                await asyncio.sleep(0.02)
            for client in clients:
                await client.close()
            if connections == 1:  # it takes the allocator five seconds
                await memory.goes_back()
        assert await server.end() == 0, server.errors
    assert "Traceback" not in server.errors


def _request(nbytes=MESSAGE_BYTES):
    made = inference_pb2.ModelInferRequest(model_name="sim", raw_input_contents=[bytes(nbytes)])
    made.inputs.add(name="input", datatype="UINT8", shape=[1, nbytes])
    return bomb(made.SerializeToString())


FRAME = OPEN + bomb(pb.ClientMessage(frame=pb.Frame(seq=1, payload=bytes(MESSAGE_BYTES))).SerializeToString())


@pytest.mark.parametrize(
    ("connections", "calls", "path", "messages", "harmless"),
    [
        (1, 200, INFER, _request(), _request(1)),
        (100, 1, INFER, _request(), b""),
        (100, 1, FRAMES, FRAME, b""),
    ],
    ids=["one connection", "requests", "open streams"],
)
@on_loop(guard_s=3 * HANG_GUARD_S)
async def test_floods_of_messages_that_inflate(tmp_path, connections, calls, path, messages, harmless):
    environment = {"FOREBAY_ALLOW_COMPRESSION": "true"}
    async with serve("--model-repository", simulated(tmp_path), environment=environment) as server:
        address = await server.wait_ready()
        memory = Memory(server.process.pid)
        async with camera_on(address) as answered:
            clients = [await Bombs.connect(address, calls, path, messages, harmless) for _ in range(connections)]
            loop = asyncio.get_running_loop()
            until_s = loop.time() + INFLATED_S
            while loop.time() < until_s or sum(client.ended for client in clients) <= 10 or not answered:
                assert memory.growth <= MOST_BYTES
                await asyncio.sleep(0.02)
            for client in clients:
                await client.close()
        assert await server.end() == 0, server.errors
    assert "Traceback" not in server.errors

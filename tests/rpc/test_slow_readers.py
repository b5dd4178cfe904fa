"""A client that takes nothing is cut after the write deadline, others notice nothing, and no resource of it stays."""

import asyncio
from contextlib import suppress

import grpc

from forebay.wire import frames_pb2 as pb
from forebay.wire import inference_pb2
from tests.support.guard import HANG_GUARD_S
from tests.support.loops import on_loop
from tests.support.real_server import RawStream, eventually, real_server, simulated

# The second is grpc.aio's own word on the client's side, where a write was under way when its stream was cut.
CUT = {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL}
BIG_BYTES = 1 << 18
NARROW = [("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65536)]
FRAMES = 12  # more than fits into the windows of HTTP/2 and one write


def big(tmp_path):
    """A model that gives back a quarter of a megabyte a frame."""
    return simulated(tmp_path, input_bytes=BIG_BYTES)


def fill(stream, frames=FRAMES):
    """Send frames and read no result; the sending stops when the server stops reading."""

    async def send():
        for seq in range(1, frames + 1):
            await stream.send(seq, bytes(BIG_BYTES))

    return asyncio.create_task(send())


def tasks_of_calls():
    """Tasks of grpc.aio that hold a call."""
    names = (task.get_coro().__qualname__ for task in asyncio.all_tasks())
    return [name for name in names if name in {"_schedule_rpc_coro", "_handle_exceptions"}]


async def open_on(channel):
    stream = RawStream(channel)
    await stream.send_open(outputs=[pb.OUTPUT_TENSORS], max_in_flight=4)
    await stream.receive()
    return stream


@on_loop
async def test_a_client_that_never_reads_is_cut_and_can_read_why(tmp_path):
    async with (
        real_server(big(tmp_path), write_deadline_s=0.3) as running,
        grpc.aio.insecure_channel(running.address, options=NARROW) as channel,
    ):
        running.server.frames._calls.delivery_timeout_s = (
            HANG_GUARD_S  # this client does read, however busy the machine
        )
        stream = await open_on(channel)
        sending = fill(stream)
        await eventually(lambda: running.server.frames.streams)
        await eventually(lambda: not running.server.frames.streams)
        code, details = await stream.status()
        assert code in CUT
        assert "took no message" in details or code is not grpc.StatusCode.RESOURCE_EXHAUSTED
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        assert running.server.permits.taken_count == 0


@on_loop
async def test_nothing_of_a_cut_stream_stays_while_its_client_lives_on_without_reading(tmp_path):
    async with real_server(big(tmp_path), write_deadline_s=0.3) as running:
        channels = [grpc.aio.insecure_channel(running.address, options=NARROW) for _ in range(4)]
        streams = [await open_on(channel) for channel in channels]
        sending = [fill(stream) for stream in streams]
        await eventually(lambda: not running.server.frames.streams)
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)
        await eventually(lambda: not tasks_of_calls())
        assert running.server.permits.taken_count == 0
        for channel in channels:
            await channel.close()


@on_loop
async def test_a_client_that_is_cut_in_a_drain_can_read_why_as_well(tmp_path):
    async with (
        real_server(big(tmp_path), write_deadline_s=0.3, drain_grace_s=3600) as running,
        grpc.aio.insecure_channel(running.address, options=NARROW) as channel,
    ):
        running.server.frames._calls.delivery_timeout_s = 0.01  # it reads again later than that
        streams = [await open_on(channel) for _ in range(2)]
        await asyncio.gather(*(fill(stream, 4) for stream in streams))  # as many as fit: no write meets the end
        draining = asyncio.create_task(running.server.front_end.drain())
        await eventually(lambda: not running.server.frames.streams)
        await asyncio.sleep(0.2)
        for stream in streams:
            code, details = await stream.status()
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "took no message" in details
        await draining


@on_loop
async def test_a_reader_that_is_only_slow_is_not_cut(tmp_path):
    async with (
        real_server(big(tmp_path), write_deadline_s=1.5) as running,
        grpc.aio.insecure_channel(running.address, options=NARROW) as channel,
    ):
        stream = await open_on(channel)
        sending = fill(stream)
        seqs = []
        for _ in range(FRAMES):
            await asyncio.sleep(0.15)  # longer than the deadline altogether
            seqs.append((await stream.result()).seq)
        await sending
        assert seqs == list(range(1, FRAMES + 1))
        await stream.half_close()
        await stream.drain()


@on_loop
async def test_a_client_that_never_reads_is_cut_on_the_open_inference_protocol_too(tmp_path):
    async with (
        real_server(big(tmp_path), write_deadline_s=0.3) as running,
        grpc.aio.insecure_channel(running.address, options=NARROW) as channel,
    ):
        running.server.frames._calls.delivery_timeout_s = HANG_GUARD_S
        call = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")()
        tensor = inference_pb2.ModelInferRequest.InferInputTensor(name="input", datatype="UINT8", shape=[1, BIG_BYTES])
        request = inference_pb2.ModelInferRequest(
            model_name="sim", inputs=[tensor], raw_input_contents=[bytes(BIG_BYTES)]
        )

        async def send():
            for _ in range(400):
                await call.write(request.SerializeToString())

        sending = asyncio.create_task(send())
        await eventually(lambda: running.server.inference.streams)
        await eventually(lambda: not running.server.inference.streams)
        with suppress(grpc.aio.AioRpcError):
            while await call.read() is not grpc.aio.EOF:
                pass
        assert await call.code() in CUT
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        await eventually(lambda: running.server.permits.taken_count == 0)

"""Compressed messages: 16 KB on the wire may be 16 MB for the server, which refuses them unless it is set to."""

import asyncio

import grpc
import pytest

from forebay.wire import inference_pb2 as pb
from forebay_server.service.frontend.reception import watch
from tests.support.half_sent import HalfSent
from tests.support.loops import on_loop
from tests.support.real_server import METHOD, ROW_BYTES, eventually, real_server, simulated

INFER = "/inference.GRPCInferenceService/ModelInfer"
ALGORITHMS = pytest.mark.parametrize("algorithm", [grpc.Compression.Gzip, grpc.Compression.Deflate])
MESSAGE_BYTES = 1 << 16


def request(nbytes=ROW_BYTES):
    made = pb.ModelInferRequest(model_name="sim", raw_input_contents=[bytes(nbytes)])
    made.inputs.add(name="input", datatype="UINT8", shape=[1, nbytes])
    return made.SerializeToString()


@ALGORITHMS
@on_loop
async def test_a_compressed_call_is_refused_before_a_byte_is_inflated(tmp_path, algorithm):
    async with real_server(simulated(tmp_path)) as running:
        call = running.channel.unary_unary(INFER)(request(1 << 20), compression=algorithm)
        assert await call.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "is disabled" in await call.details()
        stream = running.channel.stream_stream(METHOD)(compression=algorithm)  # its headers are enough
        assert await stream.code() is grpc.StatusCode.UNIMPLEMENTED
        assert await running.channel.unary_unary(INFER)(request())  # its connection goes on


@ALGORITHMS
@on_loop
async def test_compressed_messages_are_taken_where_the_operator_allows_them(tmp_path, algorithm):
    async with real_server(simulated(tmp_path), allow_compression=True) as running:
        answer = await running.channel.unary_unary(INFER)(request(), compression=algorithm)
        assert pb.ModelInferResponse.FromString(answer).raw_output_contents == [bytes(ROW_BYTES)]


@ALGORITHMS
@on_loop
async def test_the_limit_of_a_message_holds_for_what_it_inflates_to(tmp_path, algorithm):
    limits = {"allow_compression": True, "max_message_bytes": MESSAGE_BYTES}
    async with real_server(simulated(tmp_path), **limits) as running:
        infer = running.channel.unary_unary(INFER)
        call = infer(request(MESSAGE_BYTES * 16), compression=algorithm)
        assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "larger than max" in await call.details()
        assert await infer(request(), compression=algorithm)  # its connection goes on


@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer", "frames"])
@on_loop
async def test_a_connection_that_sends_more_than_its_rate_waits_and_others_do_not(tmp_path, method):
    large = 20 << 20  # at a MiB each second, later messages wait for longer than this test lasts
    limits = {"allow_compression": True, "compression_bytes_per_s": 1 << 20, "max_message_bytes": 1 << 30}
    async with real_server(simulated(tmp_path), **limits) as running:
        if method == "frames":
            stream = await running.open()
            await stream.send(1, bytes(large))
            assert (await stream.result()).status.code
            await stream.send(2)
            waiting = asyncio.ensure_future(stream.result())
        elif method == "ModelStreamInfer":
            stream = running.channel.stream_stream(f"/inference.GRPCInferenceService/{method}")()
            await stream.write(request(large))
            assert await stream.read()
            await stream.write(request())
            waiting = asyncio.ensure_future(stream.read())
        else:
            infer = running.channel.unary_unary(INFER)
            assert await infer(request(large)).code() is grpc.StatusCode.INVALID_ARGUMENT
            waiting = asyncio.ensure_future(infer(request()).code())
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(running.address, options) as other:
            assert await other.unary_unary(INFER)(request())
        assert not waiting.done()
        waiting.cancel()
        await asyncio.wait([waiting])
        if method != "ModelInfer":
            (stream.call if method == "frames" else stream).cancel()


@on_loop
async def test_there_are_as_many_streams_as_there_is_room_for_what_their_messages_inflate_to(tmp_path):
    limits = {"allow_compression": True, "reception_bytes": 4 << 20, "max_message_bytes": 1 << 20}
    async with real_server(simulated(tmp_path), **limits) as running:
        streams = [await running.open(), await running.open()]
        refused = running.stream()
        code, words = await refused.status()
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert words == "the server has 2 streams open, the most where messages may be compressed"
        inference = running.channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")()
        assert await inference.code() is grpc.StatusCode.UNAVAILABLE
        answers = await asyncio.gather(*(running.channel.unary_unary(INFER)(request()) for _ in range(20)))
        assert len(answers) == 20
        await streams[0].half_close()
        assert await streams[0].results() == []
        await eventually(lambda: len(running.server.frames.streams) == 1)
        await (await running.open()).half_close()
        await streams[1].half_close()


@on_loop
async def test_health_is_answered_while_requests_wait_for_room(tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "STRICT_TURN_NS", 120 * 10**9)  # longer than a test may take
    limits = {"allow_compression": True, "message_deadline_s": 0}
    async with real_server(simulated(tmp_path), **limits) as running:
        gate = running.server.receptions.gate
        client = await HalfSent.connect(running.address, 4, MESSAGE_BYTES, INFER)
        await eventually(lambda: gate._reserved_bytes > gate._room_bytes - (16 << 20))
        waiting = asyncio.ensure_future(running.channel.unary_unary(INFER)(request()))
        await eventually(lambda: gate.waiting_count)
        assert await running.channel.unary_unary("/grpc.health.v1.Health/Check")(b"") == b"\x08\x01"
        assert not waiting.done()
        await client.close()
        await waiting

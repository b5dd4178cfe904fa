"""Refusals that another server may take say so to proxies, others do not; and the announced drain."""

import asyncio
import struct

import grpc
import numpy as np
import pytest

from forebay.wire import frames_pb2 as pb
from forebay.wire import health_pb2, inference_pb2
from tests.rpc.test_inference_statistics import get, samples
from tests.support import http2 as h
from tests.support.guard import HANG_GUARD_S
from tests.support.inference import request_of, stub_of
from tests.support.loops import on_loop
from tests.support.real_server import ROW_BYTES, SimulatedDevices, eventually, open_message, real_server, row, simulated

# SETTINGS_HEADER_TABLE_SIZE = 0: every block can be read by itself; and gRPC's own setting for bytes as they are.
READABLE = struct.pack(">HIHI", 1, 0, 0xFE03, 1)
INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"
FRAMES = "/forebay.v1.FrameInference/Stream"
REQUEST = request_of("sim", input=np.zeros((1, ROW_BYTES), np.uint8))
OPENING = pb.ClientMessage(open=open_message())


async def answer_to(address, path, message, metadata=()):
    """The frames with which a server answers a call that half-closes: (kind, flags, payload) of each on its stream."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(h.PREFACE + h.frame(h.SETTINGS, 0, 0, READABLE))
    own = (h.field(name, value) for name, value in metadata)
    writer.write(h.frame(h.HEADERS, h.END_HEADERS, 1, h.call(path, *own)))
    writer.write(h.frame(h.DATA, h.END_STREAM, 1, h.message(message.SerializeToString())))
    frames = []
    async with asyncio.timeout(HANG_GUARD_S):
        while not (frames and frames[-1][1] & h.END_STREAM):
            head = await reader.readexactly(9)
            kind, flags, stream = struct.unpack(">BBI", head[3:])
            payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
            if stream == 1 and kind in (h.HEADERS, h.DATA):
                frames.append((kind, flags, payload))
            elif kind == h.SETTINGS and not flags & h.ACK:
                writer.write(h.frame(h.SETTINGS, h.ACK))
    writer.transport.abort()
    return frames


def is_for_elsewhere(frames):
    """Whether a refusal is for elsewhere. It is Trailers-Only: one HEADERS frame that ends the stream."""
    ((kind, flags, block),) = frames
    assert kind == h.HEADERS
    assert flags & h.END_STREAM
    assert b":status" in block or b"grpc-status" in block
    return b"elsewhere\x011" in block


@pytest.mark.parametrize(
    ("path", "message"),
    [(FRAMES, OPENING), (INFER, REQUEST), (STREAM_INFER, REQUEST)],
    ids=["frames", "infer", "stream"],
)
@on_loop
async def test_a_refusal_of_a_server_that_drains_is_trailers_only_and_for_elsewhere(tmp_path, path, message):
    async with real_server(simulated(tmp_path)) as running:
        running.server.frames.refuse()
        running.server.inference.refuse()
        assert is_for_elsewhere(await answer_to(running.address, path, message))
        running.server.frames._is_draining = running.server.inference._is_draining = False


@pytest.mark.parametrize(("path", "message"), [(FRAMES, OPENING), (STREAM_INFER, REQUEST)], ids=["frames", "stream"])
@on_loop
async def test_a_refusal_at_the_limit_of_streams_is_trailers_only_and_for_elsewhere(tmp_path, path, message):
    async with real_server(simulated(tmp_path), max_streams=1, admin_address="127.0.0.1:0") as running:
        stream = await running.open()
        assert is_for_elsewhere(await answer_to(running.address, path, message))
        await running.told()
        _, text = await get(running.server.admin_address)
        found = samples(text)
        assert found['forebay_streams_refused_total{why="limit"}'] == 1
        assert found['forebay_streams_opened_total{how="new"}'] == 1
        await stream.half_close()
        assert await stream.results() == []


@on_loop
async def test_work_that_is_refused_because_there_is_too_much_is_not_for_elsewhere(tmp_path):
    """A proxy that tried it again would add to the overload."""
    async with real_server(simulated(tmp_path), devices=SimulatedDevices(), permits=1) as running:
        stream = await running.open(max_in_flight=4)
        await running.occupy(stream)
        for seq in range(2, 4):  # some of them wait for the lane, and one has the permit
            await stream.send(seq)
        await running.received(3)
        await eventually(lambda: running.server.permits.taken_count == 1)
        frames = await answer_to(running.address, INFER, REQUEST)
        assert not is_for_elsewhere(frames)
        assert b"grpc-status\x0214" in frames[0][2]
        running.release()
        await stream.half_close()
        assert len(await stream.results()) == 3


@on_loop
async def test_while_the_drain_is_announced_health_is_not_serving_and_everything_is_served(tmp_path):
    settings = {"drain_announce_s": 3600, "admin_address": "127.0.0.1:0"}
    async with real_server(simulated(tmp_path), **settings) as running:
        front_end, stub = running.server.front_end, stub_of(running)
        check = running.channel.unary_unary("/grpc.health.v1.Health/Check")
        health = health_pb2.HealthCheckResponse
        assert health.FromString(await check(b"")).status == health.SERVING
        stream = await running.open()
        draining = asyncio.create_task(front_end.drain())
        await eventually(lambda: front_end.is_draining)
        assert health.FromString(await check(b"")).status == health.NOT_SERVING
        later = await running.open(stream_id="later", resume_from=7)
        for each, seq in ((stream, 1), (later, 7)):
            await each.send(seq)
            result = await each.result()
            assert (result.status.code, result.tensors[0].data) == (pb.STATUS_OK, row(seq))
            assert each.controls == []
        response = await stub.ModelInfer(REQUEST)
        assert response.model_name == "sim"
        await running.told()
        _, text = await get(running.server.admin_address)
        found = samples(text)
        assert found["forebay_draining"] == 1
        assert found['forebay_streams_opened_total{how="resumed"}'] == 1
        front_end.announced.set()
        for each in (stream, later):
            message = await each.receive()
            assert message.reconnect == pb.Reconnect(reason=pb.Reconnect.REASON_DRAIN, grace_ms=5000)
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.ModelInfer(REQUEST)
        for each in (stream, later):
            await each.half_close()
            assert await each.results() == []
        await draining


@on_loop
async def test_open_inference_streams_are_counted_one_by_one(tmp_path):
    async with real_server(simulated(tmp_path), admin_address="127.0.0.1:0") as running:
        calls = [stub_of(running).ModelStreamInfer() for _ in range(3)]
        for call in calls:
            await call.write(REQUEST)
            assert isinstance(await call.read(), inference_pb2.ModelStreamInferResponse)
        stream = await running.open()
        await running.told()
        _, text = await get(running.server.admin_address)
        found = samples(text)
        assert found['forebay_streams{model="",version="",protocol="inference"}'] == 3
        assert found['forebay_streams{model="sim",version="1",protocol="frames"}'] == 1
        assert found['forebay_instances{model="sim",version="1"}'] == 1
        assert found['forebay_pending_streams{model="sim",version="1"}'] == 0
        for call in calls:
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF
        await stream.half_close()
        assert await stream.results() == []

"""The end of a server, in order: new streams are refused, open ones asked to leave, everything read is answered."""

import asyncio
import resource
import signal
from contextlib import suppress
from random import Random

import grpc
import numpy as np
import pytest

from forebay.wire import frames_pb2 as pb
from forebay.wire import inference_pb2
from forebay_server.service.errors import Outcome
from forebay_server.service.frontend.open_inference.servicer import DRAINING
from tests.support import http2 as h
from tests.support.guard import HANG_GUARD_S
from tests.support.half_sent import HalfSent
from tests.support.inference import request_of, stub_of
from tests.support.loops import on_loop
from tests.support.real_server import (
    ROW_BYTES,
    RawStream,
    SimulatedDevices,
    eventually,
    open_message,
    real_server,
    row,
    simulated,
)
from tests.support.serve_process import serve


@on_loop
async def test_clients_are_asked_to_leave_and_everything_before_their_half_close_is_answered(tmp_path):
    async with real_server(simulated(tmp_path), devices=SimulatedDevices(), drain_grace_s=30) as running:
        stream = await running.open()
        await running.occupy(stream)
        draining = asyncio.create_task(running.server.front_end.drain())
        message = await stream.receive()
        assert message.reconnect == pb.Reconnect(reason=pb.Reconnect.REASON_DRAIN, grace_ms=30_000)
        for seq in range(2, 9):  # sent after Reconnect, before the half-close
            await stream.send(seq)
        await stream.half_close()
        running.release()
        results = await stream.results()
        await draining
    assert [(r.seq, r.status.code, r.tensors[0].data) for r in results] == [
        (seq, pb.STATUS_OK, row(seq)) for seq in range(1, 9)
    ]


@on_loop
async def test_a_client_that_never_half_closes_is_cut_after_the_grace_with_all_it_sent_answered(tmp_path):
    async with real_server(simulated(tmp_path), drain_grace_s=0.2) as running:
        streams = [await running.open(stream_id=str(i), max_in_flight=64) for i in range(3)]
        for stream in streams:
            for seq in range(20):
                await stream.send(seq)
        await running.received(60)
        await running.server.front_end.drain()
        for stream in streams:
            assert [(r.seq, r.status.code) for r in await stream.results()] == [(s, pb.STATUS_OK) for s in range(20)]
            assert await stream.status() == (grpc.StatusCode.OK, "")
            assert [m.WhichOneof("message") for m in stream.controls] == ["reconnect"]


@on_loop
async def test_a_client_that_has_not_opened_does_not_hold_up_the_end(tmp_path):
    async with real_server(simulated(tmp_path), drain_grace_s=0.1) as running:
        stream = running.stream()
        await eventually(lambda: running.server.frames.streams)
        async with asyncio.timeout(HANG_GUARD_S):
            await running.server.front_end.drain()
        assert await stream.status() == (grpc.StatusCode.OK, "")


@on_loop
async def test_a_request_that_does_not_come_to_its_end_is_sent_away_where_its_connection_goes_on(tmp_path):
    """Where nothing else goes on there, it ends with its connection."""
    opening = h.message(pb.ClientMessage(open=open_message()).SerializeToString())
    async with real_server(simulated(tmp_path), drain_grace_s=0.2) as running:
        client = await HalfSent.connect(running.address, 1, 10_000)
        client.write(h.frame(h.HEADERS, h.END_HEADERS, 3, h.call()) + h.frame(h.DATA, 0, 3, opening))
        await eventually(lambda: client.is_full and running.server.frames.streams)
        await running.server.front_end.drain()
        await client.is_over.wait()
        assert b"send it to another one" in client.ended[1]
        await client.close()


@on_loop
async def test_new_streams_are_refused_during_a_drain(tmp_path):
    """The new stream sends nothing: a write that meets the end of its stream makes grpc's own client say INTERNAL."""
    async with real_server(simulated(tmp_path)) as running:
        stream = await running.open()
        draining = asyncio.create_task(running.server.front_end.drain())
        await stream.receive()
        code, _ = await running.stream().status()
        # gRPC cancels a call that arrives between the close of the listener and the client's knowing of it.
        assert code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
        await stream.half_close()
        assert await stream.results() == []
        await draining


def answer_of(call):
    """The status of a request, in the background: (code, words)."""

    async def ask():
        try:
            await call
        except grpc.aio.AioRpcError as error:
            return error.code(), error.details()
        return grpc.StatusCode.OK, ""

    return asyncio.create_task(ask())


@pytest.mark.parametrize("method", ["ModelInfer", "ModelMetadata", "ServerLive"])
@on_loop
async def test_requests_that_come_all_the_time_are_answered_or_told_to_go_elsewhere(tmp_path, method):
    """gRPC cancels those that come between the end of its listener and their client's knowing of it."""
    requests = {
        "ModelInfer": request_of("sim", input=np.zeros((1, ROW_BYTES), np.uint8)),
        "ModelMetadata": inference_pb2.ModelMetadataRequest(name="sim"),
        "ServerLive": inference_pb2.ServerLiveRequest(),
    }
    async with real_server(simulated(tmp_path), drain_grace_s=3600) as running:
        call = getattr(stub_of(running), method)
        assert await answer_of(call(requests[method])) == (grpc.StatusCode.OK, "")
        answers = [answer_of(call(requests[method])) for _ in range(20)]
        draining = asyncio.create_task(running.server.front_end.drain())
        while not draining.done():
            answers.append(answer_of(call(requests[method])))
            await asyncio.sleep(0)
        statuses = await asyncio.gather(*answers)
    assert {code for code, _ in statuses} <= {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}
    assert statuses[-1][0] is grpc.StatusCode.UNAVAILABLE


@on_loop
async def test_a_request_that_is_under_way_is_answered_and_a_new_one_refused_in_words(tmp_path):
    async with real_server(simulated(tmp_path), devices=SimulatedDevices(), drain_grace_s=3600) as running:
        stub = stub_of(running)
        stream = await running.open()
        await running.occupy(stream)
        request = request_of("sim", input=np.zeros((1, ROW_BYTES), np.uint8))
        under_way = answer_of(stub.ModelInfer(request))
        await eventually(lambda: running.server.front_end._under_way._requests)
        draining = asyncio.create_task(running.server.front_end.drain())
        await eventually(lambda: running.server.inference._is_draining)
        for refused in (stub.ModelInfer(request), stub.RepositoryIndex(inference_pb2.RepositoryIndexRequest())):
            assert await answer_of(refused) == (grpc.StatusCode.UNAVAILABLE, DRAINING)
        assert (await stub.ServerReady(inference_pb2.ServerReadyRequest())).ready is True  # no signal has come
        running.release()
        assert await under_way == (grpc.StatusCode.OK, "")
        await stream.half_close()
        await stream.drain()
        await draining


@on_loop
async def test_a_stream_that_comes_as_the_drain_begins_is_told_where_to_go(tmp_path):
    """It was under way when the listener closed, and came to its handler after the drain had begun."""
    async with real_server(simulated(tmp_path)) as running:
        stream = await running.open()
        running.server.frames.refuse()
        running.server.frames.ask_to_leave(grace_ms=1000)
        await stream.receive()
        code, message = await running.stream().status()
        assert code is grpc.StatusCode.UNAVAILABLE
        assert message == "the server is shutting down; open the stream on another one"
        await stream.half_close()
        assert await stream.results() == []


@pytest.mark.parametrize("seed", range(6))
@on_loop
async def test_everything_that_was_read_is_answered_when_clients_go_on_sending_through_the_grace(tmp_path, seed):
    random = Random(seed)  # noqa: S311 - not a secret
    async with real_server(simulated(tmp_path), drain_grace_s=random.choice([0.0, 0.02, 0.1])) as running:
        streams = []
        for number in range(4):
            delivery = pb.DELIVERY_LATEST if number % 2 else pb.DELIVERY_EVERY
            window = random.randint(1, 20)
            streams.append(await running.open(stream_id=str(number), delivery=delivery, max_in_flight=window))
        senders = [asyncio.create_task(send_for_ever(stream)) for stream in streams]
        readers = [asyncio.create_task(stream.drain()) for stream in streams]
        await running.received(random.randint(1, 200))
        await running.server.front_end.drain()
        answers = await asyncio.gather(*readers)
        await asyncio.gather(*senders)
        for results in answers:
            assert [r.seq for r in results] == list(range(1, len(results) + 1))
            assert {r.status.code for r in results} <= {pb.STATUS_OK, pb.STATUS_SUPERSEDED, pb.STATUS_EXPIRED}
        outcomes = running.server.frames.outcomes
        assert not outcomes[Outcome.CANCELLED]
        assert sum(outcomes.values()) == running.server.frames.frames_received
        # A write that meets the end of its stream makes grpc's own client report INTERNAL and read no further, for all
        # answers of the server; one that meets the end of the connection makes the kernel reset it: UNAVAILABLE.
        codes = {await stream.call.code() for stream in streams}
        assert codes <= {grpc.StatusCode.OK, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE}


async def send_for_ever(stream):
    seq = 0
    with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # until the server ends the stream
        while True:
            seq += 1
            await stream.send(seq)
            await asyncio.sleep(0)


@on_loop
async def test_a_server_without_a_descriptor_left_drains_all_the_same(tmp_path):
    """As after a flood of connections: it cannot even look which of them are idle."""
    async with serve("--model-repository", simulated(tmp_path)) as server:
        async with grpc.aio.insecure_channel(await server.wait_ready()) as channel:
            stream = RawStream(channel)
            await stream.send_open()
            assert (await stream.receive()).WhichOneof("message") == "opened"
            resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (3, 3))
            server.signal(signal.SIGTERM)
            assert (await stream.receive()).WhichOneof("message") == "reconnect"
            await stream.send(1)
            await stream.half_close()
            assert [result.status.code for result in await stream.results()] == [pb.STATUS_OK]
        assert await server.wait() == 0, server.errors

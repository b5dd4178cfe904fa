"""Messages that begin and do not end: a deadline for each, and room for all of them together that is kept."""

import asyncio
import gc
import inspect
from contextlib import asynccontextmanager

import grpc
import pytest

from forebay.wire import frames_pb2 as pb
from forebay.wire import inference_pb2
from forebay_server.service.frontend.reception import refusals
from forebay_server.service.frontend.reception import watch as watch_module
from forebay_server.service.frontend.reception.refusals import REFUSALS_PER_S
from tests.support import http2 as h
from tests.support.half_sent import HalfSent
from tests.support.loops import on_loop
from tests.support.real_server import ROW_BYTES, SimulatedDevices, eventually, open_message, real_server, row, simulated

INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"
FRAMES = "/forebay.v1.FrameInference/Stream"
OPEN = h.message(pb.ClientMessage(open=open_message()).SerializeToString())
MB = 1 << 20
LATE = b"a message that was begun did not end within 0.3 s"
FULL = b"the server receives more than it has room for"
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


def request(nbytes=ROW_BYTES):
    made = inference_pb2.ModelInferRequest(model_name="sim", raw_input_contents=[bytes(nbytes)])
    made.inputs.add(name="input", datatype="UINT8", shape=[1, nbytes])
    return made.SerializeToString()


@asynccontextmanager
async def half_sent(running, *arguments, **options):
    client = await HalfSent.connect(running.address, *arguments, **options)
    try:
        yield client
    finally:
        await client.close()


@pytest.mark.parametrize("path", [INFER, "/inference.GRPCInferenceService/ServerLive", "/grpc.health.v1.Health/Watch"])
@on_loop
async def test_a_single_request_that_does_not_come_to_its_end_is_ended(tmp_path, path):
    async with real_server(simulated(tmp_path), message_deadline_s=0.3) as running:
        client = await HalfSent.connect(running.address, 3, 10_000, path)
        await eventually(lambda: len(client.ended) == 3)
        assert all(LATE in trailers for trailers in client.ended.values())
        assert any(b"grpc-status\x014" in trailers for trailers in client.ended.values())  # then named by its index
        await client.close()
        assert running.server.front_end.watch.ended == {"late": 3}


@pytest.mark.parametrize(("path", "first"), [(FRAMES, OPEN), (STREAM_INFER, h.message(request())), (STREAM_INFER, b"")])
@on_loop
async def test_a_message_on_an_open_stream_that_does_not_come_to_its_end_ends_the_stream(tmp_path, path, first):
    limits = {"message_deadline_s": 0.3}
    async with (
        real_server(simulated(tmp_path), **limits) as running,
        half_sent(running, 1, 200_000, path, first) as client,
    ):
        await eventually(lambda: client.ended)
        assert LATE in client.ended[1]


@on_loop
async def test_streams_that_wait_for_their_next_frame_are_left_alone_beside_busy_ones(tmp_path):
    """On one connection, for some deadlines: no message of a silent stream has begun."""
    async with real_server(
        simulated(tmp_path), message_deadline_s=0.5
    ) as running:  # more than a busy machine takes for one
        watch = running.server.front_end.watch
        silent = [await running.open(stream_id=f"silent {index}") for index in range(3)]
        busy = await running.open(stream_id="busy")
        infer = running.channel.unary_unary(INFER)
        began_ns = running.server.clock.now_ns()
        seq = 0
        while running.server.clock.now_ns() - began_ns < 2e9:
            seq += 1
            await busy.send(seq)
            assert (await busy.result()).status.code == pb.STATUS_OK
            assert await infer(request(200_000)).code() is grpc.StatusCode.INVALID_ARGUMENT
        for stream in silent:
            await stream.send(1)
            assert (await stream.result()).status.code == pb.STATUS_OK
        assert not watch.ended
        for stream in (*silent, busy):
            await stream.half_close()
            assert await stream.results() == []


@on_loop
async def test_one_client_cannot_have_more_received_than_there_is_room_for(tmp_path):
    """Its calls wait to be let in; another client's are served meanwhile, however large."""
    window = {"stream_window_bytes": 1 << 18}
    limits = {"reception_bytes": 16 * MB, "max_message_bytes": 2 * MB, "message_deadline_s": 0, **window}
    async with real_server(simulated(tmp_path), **limits) as running:
        receptions, watch = running.server.receptions, running.server.front_end.watch
        async with half_sent(running, 50, 2 * MB - 100) as client:
            await eventually(lambda: receptions.gate.waiting_count == 48)
            await eventually(lambda: sum(client.sent[stream] >= 2 * MB - 200 for stream in client.streams) == 2)
            async with grpc.aio.insecure_channel(running.address, OWN_CONNECTION) as other:
                infer = other.unary_unary(INFER)
                assert await infer(request(MB - 1000)).code() is grpc.StatusCode.INVALID_ARGUMENT
                assert await asyncio.gather(*(infer(request()) for _ in range(50)))
            assert not client.ended
            waiting = client.streams[2:]
            assert max(client.sent[stream] for stream in waiting) <= running.server.settings.stream_window_bytes
        await eventually(lambda: not receptions.gate.waiting_count)
        await eventually(lambda: not receptions.accounts)
        await eventually(lambda: not watch.held_bytes)


@pytest.mark.parametrize(("path", "code"), [(FRAMES, b"\x018"), (STREAM_INFER, b"\x0214"), (INFER, b"\x0214")])
@on_loop
async def test_those_who_hold_most_for_longest_are_ended_when_all_hold_too_much(tmp_path, path, code):
    limits = {"reception_bytes": 4 * MB, "max_message_bytes": MB, "message_deadline_s": 0}
    first = OPEN if path == FRAMES else b""
    async with real_server(simulated(tmp_path), **limits) as running:
        watch = running.server.front_end.watch
        camera = await running.open()
        clients = [await HalfSent.connect(running.address, 1, MB - 100, path, first) for _ in range(3)]
        await eventually(lambda: all(client.is_full for client in clients))
        await eventually(lambda: watch.held_bytes > 2 * MB)
        assert not watch.ended
        clients += [await HalfSent.connect(running.address, 1, MB - 100, path, first) for _ in range(3)]
        await eventually(lambda: watch.ended["full"] >= 1)
        await eventually(lambda: any(client.ended for client in clients))
        ended = [trailers for client in clients for trailers in client.ended.values()]
        assert all(FULL in trailers and b"grpc-status" + code in trailers for trailers in ended)
        assert sum(bool(client.ended) for client in clients) < len(clients)
        await camera.send(1, row(1))
        assert (await camera.result()).status.code == pb.STATUS_OK
        for client in clients:
            await client.close()
        await camera.half_close()
        assert await camera.results() == []
        assert "cut" not in watch.ended


@on_loop
async def test_an_honest_client_with_many_large_requests_waits_and_is_served(tmp_path):
    limits = {"reception_bytes": 16 * MB, "max_message_bytes": 2 * MB, "stream_window_bytes": 1 << 18}
    async with real_server(simulated(tmp_path, input_bytes=MB), **limits) as running:
        infer = running.channel.unary_unary(INFER)
        answers = await asyncio.gather(*(infer(request(MB)) for _ in range(40)))
        assert len(answers) == 40
        assert not running.server.front_end.watch.ended


@on_loop
async def test_a_call_without_a_message_is_told_so(tmp_path):
    async with real_server(simulated(tmp_path)) as running:
        call = running.channel.stream_unary(INFER)()
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "has no message" in await call.details()


@on_loop
async def test_what_nobody_reads_waits_at_its_client(tmp_path):
    window = 1 << 17
    limits = {"stream_window_bytes": window, "write_deadline_s": 0}
    async with real_server(simulated(tmp_path), devices=SimulatedDevices(), **limits) as running:
        running.hold()
        first = OPEN + b"".join(
            h.message(pb.ClientMessage(frame=pb.Frame(seq=seq, payload=row(seq))).SerializeToString())
            for seq in range(1, 20_001)
        )
        async with half_sent(running, 1, 1, FRAMES, first) as client:
            await eventually(lambda: client.sent[1] >= window)
            for _ in range(20):
                await asyncio.sleep(0)
            taken = sum(session.session.frames_received for session in running.sessions) * 80
            assert client.sent[1] <= taken + 2 * window
            running.release()


@on_loop
async def test_more_connections_than_allowed_are_closed_and_the_others_go_on(tmp_path):
    async with real_server(simulated(tmp_path), max_connections=3) as running:
        assert await running.channel.unary_unary(INFER)(request())
        others = [await HalfSent.connect(running.address, 1, 100) for _ in range(4)]
        await eventually(lambda: sum(other.is_over.is_set() for other in others) == 2)
        await eventually(lambda: running.server.front_end.watch.connections == 3)
        assert await running.channel.unary_unary(INFER)(request())
        for other in others:
            await other.close()


@on_loop
async def test_a_call_that_begins_during_a_look_is_not_late(tmp_path, monkeypatch):
    """The upkeep looks on a thread of its own: a call that it does not know yet has all its time left."""
    monkeypatch.setattr(watch_module, "LOOK_INTERVAL_S", 0.0)
    async with real_server(simulated(tmp_path)) as running:
        infer = running.channel.unary_unary(INFER)
        for _ in range(50):
            assert len(await asyncio.gather(*(infer(request()) for _ in range(20)))) == 20
        assert not running.server.front_end.watch.ended


@pytest.mark.parametrize(
    ("method", "limits"),
    [
        ("/forebay.v1.NoSuchService/Call", {}),
        ("/inference.GRPCInferenceService/NoSuchCall", {}),
        (INFER, {"restricted_protocol": ("inference:use=s3cret",)}),
    ],
)
@on_loop
async def test_calls_that_are_refused_unread_leave_nothing_on_their_connections_account(tmp_path, method, limits):
    """Else a stream that waits on the same connection would pass for one whose message does not end."""
    async with real_server(simulated(tmp_path), message_deadline_s=0, **limits) as running:
        watch = running.server.front_end.watch
        stream = running.channel.stream_stream(FRAMES)(metadata=(("triton-grpc-protocol-use", "s3cret"),))
        await stream.write(pb.ClientMessage(open=open_message()).SerializeToString())
        assert await stream.read()
        for _ in range(20):
            call = running.channel.unary_unary(method)(bytes(200_000))
            assert await call.code() in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAVAILABLE)
        (account,) = running.server.receptions.accounts.values()
        received = account.tally.received_bytes
        await stream.write(pb.ClientMessage(frame=pb.Frame(seq=1, payload=row(1))).SerializeToString())
        assert await stream.read()
        await eventually(lambda: account.tally.received_bytes > received)  # a look at all of it
        await eventually(lambda: watch.held_bytes < 16_384)
        stream.cancel()


def server_frames():
    """The frames of the server's coroutines that have begun and not ended, and of exceptions that are kept."""
    objects = gc.get_objects()
    frames = [each.cr_frame for each in objects if inspect.iscoroutine(each) and each.cr_frame is not None]
    frames += [each for each in objects if inspect.isframe(each)]
    return [frame for frame in frames if frame.f_globals.get("__name__", "").startswith("forebay_server.")]


@on_loop
async def test_a_client_that_is_refused_all_the_time_is_told_so_at_a_pace_and_its_messages_are_gone_meanwhile(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(refusals, "MOST_DELAY_NS", 120 * 10**9)  # longer than a test may take
    root = simulated(tmp_path, input_bytes=MB)
    async with real_server(root, devices=SimulatedDevices(), permits=1) as running:
        infer = running.channel.unary_unary(INFER)
        running.hold()
        executed = asyncio.ensure_future(infer(request(MB)))
        await eventually(lambda: running.server.permits.taken_count == 1)
        for call in [infer(request(MB)) for _ in range(3)]:
            assert await call.code() is grpc.StatusCode.UNAVAILABLE
        (account,) = running.server.receptions.accounts.values()
        for _ in range(120 * REFUSALS_PER_S):
            running.server.receptions._refusals.delay_ns(account.peer, None)
        refused = infer(request(MB))
        await eventually(lambda: any(frame.f_code.co_name == "_wait_to_refuse" for frame in server_frames()))
        found = [value for frame in server_frames() for value in frame.f_locals.values() if isinstance(value, bytes)]
        assert len({id(each) for each in found if len(each) >= MB}) == 1  # of the request that is executed
        async with grpc.aio.insecure_channel(running.address, OWN_CONNECTION) as other:
            assert await other.unary_unary(INFER)(request(MB)).code() is grpc.StatusCode.UNAVAILABLE
        assert not refused.done()
        refused.cancel()
        running.release()
        await executed

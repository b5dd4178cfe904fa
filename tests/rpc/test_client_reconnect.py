"""Calls break, servers drain and come back: streams go on, and every frame is accounted for."""

import asyncio
import logging

import grpc
import pytest

import forebay.aio
from forebay import Reconnection, Status, StreamRefusedError, UnreachableError
from forebay.wire import frames_pb2 as wire
from tests.support.bad_network import BadNetwork
from tests.support.guard import HANG_GUARD_S
from tests.support.loops import LoopClock, on_loop
from tests.support.real_server import eventually
from tests.support.scripted_server import scripted

EVERY = {"model": "m", "encoding": "jpeg", "delivery": "every", "queue_frames": 8}
LATEST = {"model": "m", "encoding": "jpeg", "queue_frames": 8}


async def outcomes(stream):
    return [(result.seq, result.status) async for result in stream]


def ok(*seqs):
    return [(seq, Status.OK) for seq in seqs]


def at_once(server, **keywords):
    """A client whose back-off is always zero."""
    return forebay.aio.Client(server.address, draw=lambda: 0.0, **keywords)


def breaks_first(code=grpc.StatusCode.UNAVAILABLE, frames=2):
    """The first call reads some frames, answers the first of them and breaks; later calls answer everything."""

    async def script(call):
        await call.accept()
        if call.index == 0:
            for _ in range(frames):
                await call.read()
            await call.answer(1)
            await call.abort(code, "gone")
        await call.echo()

    return script


@on_loop
async def test_frames_in_flight_of_a_live_camera_are_named_when_a_call_breaks():
    async with scripted(breaks_first()) as server, at_once(server) as client:
        stream = client.stream("door", **LATEST)
        await stream.send(b"1")
        await stream.send(b"2")
        assert (await stream.receive()).status is Status.OK
        lost = await stream.receive()
        assert (lost.seq, lost.status) == (2, Status.UNANSWERED)
        assert "UNAVAILABLE: gone" in lost.message
        await stream.send(b"3")
        await stream.close()
        assert await outcomes(stream) == ok(3)
        assert server.calls[1].open.resume_from == 3


@on_loop
async def test_frames_that_must_all_be_answered_are_sent_again():
    async with scripted(breaks_first()) as server, at_once(server) as client:
        stream = client.stream("door", **EVERY)
        for _ in range(3):
            await stream.send(b"jpeg")
        await stream.close()
        assert await outcomes(stream) == ok(1, 2, 3)
        assert server.calls[1].open.resume_from == 2
        assert server.calls[1].seqs == [2, 3]
        assert stream.statistics().opened == 2
        assert stream.statistics().resent >= 1


@pytest.mark.parametrize("code", ["CANCELLED", "INTERNAL", "UNKNOWN", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"])
@on_loop
async def test_whatever_a_proxy_makes_of_a_lost_server_is_tried_again(code):
    async with scripted(breaks_first(getattr(grpc.StatusCode, code))) as server, at_once(server) as client:
        stream = client.stream("door", **EVERY)
        await stream.send(b"1")
        await stream.send(b"2")
        await stream.close()
        assert await outcomes(stream) == ok(1, 2)


@on_loop
async def test_server_that_ends_the_call_unasked_is_tried_again():
    async def script(call):
        await call.accept()
        if call.index == 0:
            await call.read()
            return
        await call.echo()

    async with scripted(script) as server, at_once(server) as client:
        stream = client.stream("door", **EVERY)
        await stream.send(b"1")
        await stream.close()
        assert await outcomes(stream) == ok(1)


@on_loop
async def test_reconnect_loses_nothing_and_resumes_behind_the_last_frame():
    async def script(call):
        await call.accept()
        if call.index == 0:
            await call.answer(await call.read())
            await call.reconnect()
        await call.echo()

    async with scripted(script) as server, at_once(server) as client:
        stream = client.stream("door", **LATEST)
        await stream.send(b"1")
        assert (await stream.receive()).is_ok
        while stream.statistics().opened < 2:
            await asyncio.wait_for(stream._waiters.wait(lambda: stream.statistics().opened == 2), HANG_GUARD_S)
        await stream.send(b"2")
        await stream.close()
        assert await outcomes(stream) == ok(2)
        assert [call.seqs for call in server.calls] == [[1], [2]]
        assert server.calls[1].open.resume_from == 2
        assert stream.statistics().resent == 0


@on_loop
async def test_the_latest_state_of_tracks_goes_to_the_next_call(caplog):
    async def script(call):
        await call.accept(track_resumption=wire.TRACK_RESUMPTION_ANEW)
        if call.index == 0:
            await call.answer(await call.read(), track_state=b"first")
            await call.answer(await call.read(), track_state=b"second")
            await call.answer(await call.read())
            await call.reconnect()
        await call.echo()

    async with scripted(script) as server, at_once(server) as client:
        stream = client.stream("door", model="m", encoding="jpeg", track=True)
        for _ in range(3):
            await stream.send(b"x")
            await stream.receive()
        await eventually(lambda: len(server.calls) == 2 and server.calls[1].open is not None)
        await stream.close()
    assert (server.calls[0].open.track, server.calls[0].open.track_state) == (True, b"")
    assert (server.calls[1].open.track, server.calls[1].open.track_state) == (True, b"second")
    assert stream.opened.tracks == "anew"
    assert "its track ids begin anew" in caplog.text


@on_loop
async def test_a_stream_that_should_go_elsewhere_gets_another_connection_and_the_others_keep_theirs():
    leave = asyncio.Event()

    async def script(call):
        await call.accept()
        if call.index == 0:
            await leave.wait()
            await call.reconnect(reason=wire.Reconnect.REASON_REBALANCE)
        await call.echo()

    async with scripted(script) as server, at_once(server) as client:
        streams = [client.stream(name, **EVERY) for name in ("left", "right")]
        for stream in streams:
            stream.start()
            await eventually(lambda stream=stream: stream.opened is not None)
        leave.set()
        await eventually(lambda: len(server.calls) == 3)
        for stream in streams:
            await stream.send(b"2")
            assert (await stream.receive()).is_ok
        left, right, left_again = [call.peer for call in server.calls]
        assert left == right != left_again
        for stream in streams:
            await stream.close()
            assert await outcomes(stream) == []
        assert streams[0].statistics().opened == 2


@on_loop
async def test_streams_that_should_go_elsewhere_together_share_one_new_connection():
    leave = asyncio.Event()

    async def script(call):
        await call.accept()
        if call.index < 3:
            await leave.wait()
            await call.reconnect(reason=wire.Reconnect.REASON_REBALANCE)
        await call.echo()

    async with scripted(script) as server, at_once(server) as client:
        streams = [client.stream(name, **EVERY) for name in "abc"]
        for stream in streams:
            stream.start()
            await eventually(lambda stream=stream: stream.opened is not None)
        leave.set()
        await eventually(lambda: len(server.calls) == 6)
        peers = [call.peer for call in server.calls]
        assert len(set(peers[:3])) == len(set(peers[3:])) == 1
        assert peers[0] != peers[3]


@on_loop
async def test_frames_sent_before_a_reconnect_are_answered_on_the_old_call():
    async def script(call):
        await call.accept()
        if call.index == 0:
            frames = [await call.read() for _ in range(3)]
            await call.reconnect()
            assert await call.read() is None
            for frame in frames:
                await call.answer(frame)
            return
        await call.echo()

    async with scripted(script) as server, at_once(server) as client:
        stream = client.stream("door", **LATEST)
        for _ in range(3):
            await stream.send(b"jpeg")
        assert [(await stream.receive()).status for _ in range(3)] == [Status.OK] * 3
        await stream.send(b"jpeg")
        await stream.close()
        assert await outcomes(stream) == ok(4)


@on_loop
async def test_draining_server_that_does_not_end_is_left_after_its_grace():
    clock = LoopClock()

    async def script(call):
        await call.accept()
        if call.index == 0:
            await call.read()
            await call.reconnect(grace_ms=2000)
            await never.wait()
        await call.echo()

    never = asyncio.Event()
    async with scripted(script) as server, at_once(server, clock=clock) as client:
        stream = client.stream("door", **LATEST)
        await stream.send(b"1")
        await clock.pass_sleep(3.0)
        lost = await stream.receive()
        assert lost.status is Status.UNANSWERED
        assert "did not end the stream within 3 s" in lost.message
        await stream.abort()


@on_loop
async def test_silent_server_is_left_after_three_heartbeats():
    clock = LoopClock()

    async def script(call):
        await call.accept(heartbeat_interval_s=0 if call.index else 2)
        if call.index == 0:
            await call.read()
            await never.wait()
        await call.echo()

    never = asyncio.Event()
    async with scripted(script) as server, at_once(server, clock=clock) as client:
        stream = client.stream("door", **LATEST)
        await stream.send(b"1")
        await clock.pass_sleep(6.0)
        lost = await stream.receive()
        assert "silent for 6 s)" in lost.message
        await stream.send(b"2")
        assert (await stream.receive()).is_ok
        await stream.abort()


@on_loop
async def test_server_that_does_not_answer_open_is_given_up():
    clock = LoopClock()

    async def script(call):
        await never.wait()

    never = asyncio.Event()
    limits = Reconnection(connect_timeout_s=4.0)
    async with scripted(script) as server, at_once(server, clock=clock, reconnection=limits) as client:
        opening = asyncio.create_task(client.stream("door", **LATEST).open())
        await clock.pass_sleep(4.0)
        with pytest.raises(UnreachableError, match="did not answer Open within 4 s"):
            await opening


@on_loop
async def test_hint_of_a_full_server_is_obeyed():
    clock = LoopClock()

    async def script(call):
        if call.index == 0:
            await call.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "64 streams are open", (("retry-after-ms", "700"),))
        await call.accept()
        await call.echo()

    async with scripted(script) as server, at_once(server, clock=clock) as client:
        stream = client.stream("door", **EVERY)
        opening = asyncio.create_task(stream.open())
        await clock.pass_sleep(0.7)
        await opening
        assert len(server.calls) == 2
        await stream.abort()


@on_loop
async def test_stream_that_always_breaks_is_opened_at_most_once_a_second():
    clock = LoopClock()

    async def script(call):
        await call.accept()
        await call.abort(grpc.StatusCode.UNAVAILABLE, "again")

    async with scripted(script) as server, at_once(server, clock=clock) as client:
        stream = client.stream("door", **EVERY)
        stream.start()
        for count in range(3, 6):  # a burst of three, then one a second
            await clock.pass_sleep(1.0)
            assert len(server.calls) == count
        await stream.abort()


@on_loop
async def test_server_that_stays_away_is_given_up_and_every_frame_told():
    clock = LoopClock()
    limits = Reconnection(give_up_after_s=0.15)

    async def script(call):
        if call.index:
            await call.abort(grpc.StatusCode.UNAVAILABLE, "shutting down")
        await call.accept(window=1)
        await call.read()
        await call.abort(grpc.StatusCode.UNAVAILABLE, "gone")

    async with (
        scripted(script) as server,
        forebay.aio.Client(server.address, clock=clock, reconnection=limits, draw=lambda: 1.0) as client,
    ):
        stream = client.stream("door", **EVERY)
        await stream.send(b"1")
        await stream.send(b"2")
        await clock.pass_sleep(0.1)
        assert (await stream.receive()).status is Status.UNANSWERED
        assert (await stream.receive()).status is Status.NOT_SENT
        with pytest.raises(UnreachableError, match=r"within 0\.15 s"):
            await stream.receive()


@on_loop
async def test_model_that_is_gone_after_a_restart_ends_the_stream():
    async def script(call):
        if call.index:
            await call.abort(grpc.StatusCode.NOT_FOUND, "no model 'm'")
        await call.accept()
        await call.read()
        await call.abort(grpc.StatusCode.UNAVAILABLE)

    async with scripted(script) as server, at_once(server) as client:
        stream = client.stream("door", **LATEST)
        await stream.send(b"1")
        assert (await stream.receive()).status is Status.UNANSWERED
        with pytest.raises(StreamRefusedError, match="no model"):
            await stream.receive()


@on_loop
async def test_other_version_after_a_reconnect_is_told_and_logged():
    async def script(call):
        await call.accept(model_version=str(call.index + 1))
        if call.index == 0:
            await call.abort(grpc.StatusCode.UNAVAILABLE)
        await call.echo()

    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logging.getLogger("forebay").addHandler(handler)
    try:
        async with scripted(script) as server, at_once(server) as client:
            stream = client.stream("door", **EVERY)
            await stream.send(b"1")
            assert (await stream.receive()).is_ok
            assert stream.opened.model_version == "2"
            await stream.abort()
    finally:
        logging.getLogger("forebay").removeHandler(handler)
    assert any("version 2 of m, it was 1" in text for text in records)


@on_loop
async def test_stream_can_be_closed_while_it_waits_to_try_again():
    clock = LoopClock()
    async with forebay.aio.Client("127.0.0.1:1", clock=clock, draw=lambda: 1.0) as client:
        stream = client.stream("door", **LATEST)
        await stream.send(b"1")
        while 0.1 not in clock.sleeping:
            await asyncio.sleep(0)
        await stream.abort()
        assert await outcomes(stream) == [(1, Status.NOT_SENT)]


@on_loop
async def test_server_that_comes_back_on_its_address_is_found_again():
    async def gone(call):
        await call.accept()
        await call.echo()

    async with scripted(gone) as server:
        client = at_once(server)
        stream = client.stream("door", **EVERY)
        await stream.send(b"1")
        assert (await stream.receive()).is_ok
        await server.stop()
        await stream.send(b"2")
        await server.start(server.address)
        assert (await stream.receive()).is_ok
        await client.close()


@on_loop
async def test_a_stream_opens_over_a_line_with_a_long_round_trip():
    """gRPC gave each attempt to connect 0.1 to 0.25 s, and began again for ever."""
    async with (
        scripted() as server,
        BadNetwork(server.address, delay_s=0.35, least_delay_s=0.35).listening() as line,
        forebay.aio.Client(line.address) as client,
    ):
        stream = client.stream("door", **EVERY)
        await stream.open()
        await stream.abort()
        assert len(server.calls) == 1

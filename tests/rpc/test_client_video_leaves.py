"""A stream of video that is asked to leave goes on up to a keyframe, which is the first frame of its next call."""

import asyncio
import logging
import math

import numpy as np
import pytest

import forebay.aio
from forebay import Status
from forebay.wire import frames_pb2 as wire
from forebay_server.service.journal.streams import Why
from forebay_server.service.load.overload import Wish
from tests.support.guard import HANG_GUARD_S
from tests.support.loops import LoopClock, on_loop
from tests.support.pictures import SIDE, pictures
from tests.support.real_server import eventually, real_server
from tests.support.scripted_server import scripted
from tests.support.videos import clip, level

KEY = b"\0\0\1\x67\x64\0\0\1\x68\xee\0\0\1\x65\x88"
REST = b"\0\0\1\x41\x9a"
VIDEO = {"model": "m", "encoding": "h264"}
ENCODINGS = {"h264": "h264", "h265": "hevc"}  # encoding -> codec of `clip`


def at_once(server, **keywords):
    """A client whose back-off is always zero."""
    return forebay.aio.Client(server.address, draw=lambda: 0.0, **keywords)


def leaves(after=2, **reconnect):
    """The first call sends Reconnect behind the answer of its frame `after`; all calls answer everything."""

    async def script(call):
        await call.accept()
        while (frame := await call.read()) is not None:
            if call.index == 0 and frame.seq == after:
                await call.reconnect(**reconnect)
            await call.answer(frame)

    return script


async def answered(stream, *payloads):
    """Send frames one at a time; return how they ended."""
    found = []
    for payload in payloads:
        await stream.send(payload)
        found.append((await stream.receive()).status)
    return found


@pytest.mark.parametrize("delivery", ["latest", "every"])
@on_loop
async def test_the_keyframe_is_the_first_frame_on_the_next_call(delivery):
    async with scripted(leaves()) as server, at_once(server) as client:
        stream = client.stream("door", **VIDEO, delivery=delivery)
        assert await answered(stream, KEY, *[REST] * 4, KEY, REST) == [Status.OK] * 7
        await stream.close()
    assert [call.seqs for call in server.calls] == [[1, 2, 3, 4, 5], [6, 7]]
    assert server.calls[1].open.resume_from == 6
    assert stream.statistics().resent == 0


@on_loop
async def test_parameter_sets_of_the_stream_need_not_be_in_the_keyframe():
    idr = KEY[-5:]
    async with scripted(leaves()) as server, at_once(server) as client:
        stream = client.stream("door", **VIDEO, parameter_sets=KEY[:-5])
        assert await answered(stream, idr, REST, REST, idr, REST) == [Status.OK] * 5
        await stream.close()
    assert [call.seqs for call in server.calls] == [[1, 2, 3], [4, 5]]


@on_loop
async def test_where_no_keyframe_comes_the_stream_leaves_after_half_of_the_grace():
    clock = LoopClock()
    async with scripted(leaves(grace_ms=20_000)) as server, at_once(server, clock=clock) as client:
        stream = client.stream("door", **VIDEO)
        assert await answered(stream, KEY, REST, REST) == [Status.OK] * 3
        await clock.slept(10.0)
        clock.advance(9.9)
        assert await answered(stream, REST) == [Status.OK]
        assert len(server.calls) == 1
        clock.advance(0.1)
        await eventually(lambda: stream.statistics().opened == 2)
        assert await answered(stream, REST) == [Status.OK]
        await stream.close()
    assert [call.seqs for call in server.calls] == [[1, 2, 3, 4], [5]]


@on_loop
async def test_a_paused_stream_leaves_after_half_of_the_grace_too():
    clock = LoopClock()
    async with scripted(leaves(grace_ms=20_000)) as server, at_once(server, clock=clock) as client:
        stream = client.stream("door", **VIDEO)
        assert await answered(stream, KEY, REST) == [Status.OK] * 2
        await clock.pass_sleep(10.0)
        await eventually(lambda: stream.statistics().opened == 2)
        await stream.abort()


@on_loop
async def test_frames_behind_the_keyframe_wait_with_it_for_the_next_call():
    """Even in a queue of one frame, where newer frames push out older ones."""
    may_end, is_left = asyncio.Event(), asyncio.Event()

    async def script(call):
        await call.accept()
        if call.index == 0:
            await call.answer(await call.read())
            await call.reconnect()
        while (frame := await call.read()) is not None:
            await call.answer(frame)
        if call.index == 0:
            is_left.set()
            await may_end.wait()

    async with scripted(script) as server, at_once(server) as client:
        stream = client.stream("door", **VIDEO)
        assert await answered(stream, KEY, REST) == [Status.OK] * 2
        await stream.send(KEY)
        await is_left.wait()
        for _ in range(8):
            await stream.send(REST)
        may_end.set()
        await stream.close()
        assert [(result.seq, result.status) async for result in stream] == [(seq, Status.OK) for seq in range(3, 12)]
    assert [call.seqs for call in server.calls] == [[1, 2], list(range(3, 12))]


@on_loop
async def test_a_keyframe_that_has_no_room_in_the_window_is_not_waited_for():
    has_asked = asyncio.Event()

    async def script(call):
        await call.accept(window=2)
        if call.index == 0:
            frames = [await call.read() for _ in range(2)]
            await call.reconnect()
            has_asked.set()
            assert await call.read() is None
            for frame in frames:
                await call.answer(frame)
        await call.echo()

    async with scripted(script) as server, at_once(server) as client:
        stream = client.stream("door", **VIDEO, delivery="every")
        for payload in (KEY, REST, KEY):
            await stream.send(payload)
        await has_asked.wait()
        assert [(await stream.receive()).status for _ in range(3)] == [Status.OK] * 3
        await stream.close()
    assert [call.seqs for call in server.calls] == [[1, 2], [3]]


@on_loop
async def test_a_keyframe_that_comes_while_the_server_wants_no_frames_is_the_first_on_the_next_call():
    clock = LoopClock()

    async def script(call):
        await call.accept()
        if call.index == 0:
            await call.reconnect(grace_ms=20_000)
            await call.answer(await call.read(), code=wire.STATUS_OVERLOADED, retry_after_ms=3_000)
        await call.echo()

    async with scripted(script) as server, at_once(server, clock=clock) as client:
        stream = client.stream("door", **VIDEO)
        assert await answered(stream, REST) == [Status.OVERLOADED]
        await clock.slept(10.0)
        await stream.send(REST)
        await clock.slept(3.0)
        await stream.send(KEY)
        assert [(await stream.receive()).status for _ in range(2)] == [Status.NOT_SENT, Status.OK]
        await stream.close()
    assert [call.seqs for call in server.calls] == [[1], [3]]


@on_loop
async def test_a_stream_that_is_closed_meanwhile_ends_on_its_call():
    async with scripted(leaves()) as server, at_once(server) as client:
        stream = client.stream("door", **VIDEO, delivery="every")
        assert await answered(stream, KEY, REST) == [Status.OK] * 2
        await stream.send(REST)
        await stream.close()
        assert [result.status async for result in stream] == [Status.OK]
    assert [call.seqs for call in server.calls] == [[1, 2, 3]]


@on_loop
async def test_a_stream_that_is_asked_again_leaves_at_once():
    async def script(call):
        await call.accept()
        if call.index == 0:
            await call.answer(await call.read())
            await call.reconnect()
            await call.answer(await call.read())
            await call.reconnect()
        await call.echo()

    async with scripted(script) as server, at_once(server) as client:
        stream = client.stream("door", **VIDEO)
        assert await answered(stream, KEY, REST) == [Status.OK] * 2
        await eventually(lambda: stream.statistics().opened == 2)
        assert await answered(stream, REST) == [Status.OK]
        await stream.close()
    assert [call.seqs for call in server.calls] == [[1, 2], [3]]


@on_loop
async def test_a_server_that_ends_the_call_before_a_keyframe_is_no_failure():
    may_end = asyncio.Event()

    async def script(call):
        await call.accept()
        if call.index == 0:
            frame = await call.read()
            await call.reconnect()
            await call.answer(frame)
            await may_end.wait()
            return
        await call.echo()

    clock = LoopClock()  # no back-off could pass
    async with (
        scripted(script) as server,
        forebay.aio.Client(server.address, draw=lambda: 1.0, clock=clock) as client,
    ):
        stream = client.stream("door", **VIDEO)
        assert await answered(stream, KEY) == [Status.OK]
        may_end.set()
        await eventually(lambda: stream.statistics().opened == 2)
        assert await answered(stream, REST) == [Status.OK]
        await stream.close()


@on_loop
async def test_an_encoder_that_can_be_asked_is_asked_for_the_keyframe():
    async with scripted(leaves()) as server, at_once(server) as client:
        stream = client.stream("door", **VIDEO)
        asked = []
        for payload in (KEY, REST, REST, KEY, REST):
            asked.append(stream.needs_keyframe)
            assert await answered(stream, payload) == [Status.OK]
        asked.append(stream.needs_keyframe)
        await stream.close()
    assert asked == [False, False, True, True, False, False]
    assert [call.seqs for call in server.calls] == [[1, 2, 3], [4, 5]]


@on_loop
async def test_the_server_is_left_out_from_the_leaving_on(caplog):
    """Without that, the next call could come back to it: it was asked longer ago than servers are left out."""
    clock = LoopClock()
    caplog.set_level(logging.WARNING, "forebay")
    script = leaves(reason=wire.Reconnect.REASON_ELSEWHERE, grace_ms=20_000)
    async with (
        scripted(script) as server,
        scripted() as other,
        forebay.aio.Client(f"{server.address},{other.address}", clock=clock, draw=lambda: 0.0) as client,
    ):
        stream = client.stream("door", **VIDEO)
        assert await answered(stream, KEY, REST) == [Status.OK] * 2
        assert stream.server == server.address
        await clock.slept(10.0)
        clock.advance(9.0)
        assert await answered(stream, REST, KEY) == [Status.OK] * 2
        assert stream.server == other.address
        await stream.close()
    assert caplog.text.count("is left out for 5.0 s: it has too much to do") == 2


def shown_level(result):
    """The mean grey of the picture that the model saw."""
    (tensor,) = result.tensors.values()
    return float(np.asarray(tensor).reshape(SIDE, SIDE, 3).mean())


GOP, ASKED_AT = 20, 26
GRACE_MS = 3_600_000
ASKS = {
    "uneven": lambda frames: frames.rebalance(1, GRACE_MS),
    "overload": lambda frames: frames.move(Wish(1, math.inf), GRACE_MS, Why.OVERLOAD),
    "operator": lambda frames: frames.move(Wish(1, math.inf), GRACE_MS, Why.OPERATOR),
}


async def assert_nothing_is_missed(client, encoding, ask):
    """Send a clip whose stream is asked to leave within a group of pictures: every frame is answered with its own."""
    codec = ENCODINGS[encoding]
    units = clip(3 * GOP, codec, gop=GOP)
    stream = client.stream("door", model="camera", encoding=encoding, budget_ms=3_600_000.0)
    for index, unit in enumerate(units):
        if index == ASKED_AT:
            await ask()
        await stream.send(unit.data)
        result = await stream.receive()
        assert (result.seq, result.status) == (index + 1, Status.OK), result
        assert shown_level(result) == pytest.approx(level(unit.shown), abs=3)
    await stream.close()
    assert stream.statistics().opened == 2


@pytest.mark.parametrize("why", ASKS)
@pytest.mark.parametrize("encoding", ENCODINGS)
@on_loop
async def test_a_real_server_answers_up_to_the_keyframe_whatever_it_asks_for(tmp_path, encoding, why):
    async with real_server(pictures(tmp_path)) as running, at_once(running) as client:

        async def ask():
            ASKS[why](running.server.frames)
            await eventually(lambda: sum(running.server.frames.asked_to_leave.values()) == 1)

        await assert_nothing_is_missed(client, encoding, ask)


@on_loop
async def test_a_model_that_is_loaded_anew_answers_up_to_the_keyframe(tmp_path):
    pictures(tmp_path)
    async with (
        real_server(tmp_path, model_control_mode="explicit", load_model=("camera",)) as running,
        at_once(running) as client,
    ):

        async def ask():
            await asyncio.to_thread(running.server.lifecycle.load, "camera")
            await eventually(lambda: running.server.frames.asked_to_leave["unloaded"] == 1)

        await assert_nothing_is_missed(client, "h264", ask)
        await eventually(lambda: not running.server.registry.unloading())


@on_loop
async def test_a_server_that_drains_answers_up_to_the_keyframe(tmp_path):
    """A real drain: of the one server, while the other one is there."""
    repository = pictures(tmp_path)
    drains = []
    async with (
        real_server(repository, drain_grace_s=60.0) as first,
        real_server(repository, drain_grace_s=60.0) as second,
        forebay.aio.Client(f"{first.address},{second.address}", draw=lambda: 0.0) as client,
    ):

        async def ask():
            busy = first if first.server.frames.streams else second
            drains.append(asyncio.create_task(busy.server.front_end.drain()))
            await eventually(lambda: busy.server.frames.asked_to_leave["drain"] == 1)

        await assert_nothing_is_missed(client, "h264", ask)
        async with asyncio.timeout(HANG_GUARD_S):
            await drains[0]

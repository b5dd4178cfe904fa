"""A stream that busy servers send on: the attempts that its calls say, and its last server."""

import contextlib

import grpc

import forebay.aio
from forebay.wire import frames_pb2 as wire
from tests.rpc.test_client_servers import EVERY, client_of
from tests.support.loops import on_loop
from tests.support.real_server import eventually
from tests.support.scripted_server import scripted


def attempt_of(call):
    """The attempt that a call says; None if it says none."""
    return dict(call.metadata).get("forebay-attempt")


async def moves_at_first(call):
    await call.accept()
    if call.index == 0:
        await call.reconnect(reason=wire.Reconnect.REASON_ELSEWHERE)
    await call.echo()


async def sends_on(call):
    await call.abort(grpc.StatusCode.UNAVAILABLE, "too much to do")


async def sends_on_once(call):
    if call.index == 0:
        await sends_on(call)
    await call.accept()
    await call.echo()


@on_loop
async def test_where_every_server_sends_a_stream_on_it_comes_back_to_the_one_that_it_left():
    async with contextlib.AsyncExitStack() as stack:
        first, *others = [
            await stack.enter_async_context(scripted(script)) for script in (moves_at_first, *[sends_on] * 4)
        ]
        client = await stack.enter_async_context(client_of(first, *others))
        stream = client.stream("door", **EVERY)
        await stream.open()
        await eventually(lambda: len(first.calls) == 2)
        await stream.send(b"jpeg")
        assert (await stream.receive()).is_ok
        assert stream.server == first.address
        assert sorted(attempt_of(call) for server in others for call in server.calls) == ["1", "2", "3"]
        assert [attempt_of(call) for call in first.calls] == ["1", "4"]


@on_loop
async def test_where_no_other_server_is_left_the_call_says_that_it_may_not_be_sent_on():
    async with scripted(moves_at_first) as first, scripted(sends_on) as second, client_of(first, second) as client:
        stream = client.stream("door", **EVERY)
        await stream.open()
        await eventually(lambda: len(first.calls) == 2)
        assert [attempt_of(call) for call in (*second.calls, first.calls[1])] == ["1", "5"]


@on_loop
async def test_a_client_of_one_server_says_it_only_when_it_tries_again():
    async with scripted(sends_on_once) as server, forebay.aio.Client(server.address, draw=lambda: 0.0) as client:
        stream = client.stream("door", **EVERY)
        await stream.open()
        assert [attempt_of(call) for call in server.calls] == [None, "5"]

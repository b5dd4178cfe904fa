"""The loop that every streaming call shares: reading, writing, and every way to end."""

import asyncio
from collections import deque

import grpc
import pytest

from forebay_server.service.errors import InvalidSessionError, SlowReaderError
from forebay_server.service.frontend.open_inference.errors import INFERENCE_STATUS
from forebay_server.service.frontend.reception.receptions import Receptions
from forebay_server.service.frontend.stream_call import StreamCalls
from forebay_server.service.pipeline.permits import Permits
from forebay_server.service.pipeline.shares import Share
from forebay_server.service.settings import ServeSettings
from tests.support.clock import ManualClock
from tests.support.loops import on_loop


class Context:
    """A call: `sent` is read in order, then the client half-closes unless it `stays`; a slow client takes nothing."""

    def __init__(self, *sent, stays=False, takes=True):
        self._sent = deque(sent)
        self._stays = stays
        self._takes = takes
        self.written = []

    def peer(self):
        return "ipv4:127.0.0.1:1"

    async def send_initial_metadata(self, metadata):
        assert not self.written, "initial metadata come first"

    async def read(self):
        if self._sent:
            return self._sent.popleft()
        if self._stays:
            await asyncio.Event().wait()
        return grpc.aio.EOF

    async def write(self, message):
        if not self._takes:
            await asyncio.Event().wait()
        self.written.append(message)


class Echo:
    """A conversation that answers every message with itself, one step of the loop later, within a window."""

    def __init__(self, call, window=1):
        self.share, self.error = Share(), None
        self.most, self.is_abandoned, self.heavy = 0, False, None
        self._call, self._window = call, window
        self._waiting, self._in_flight, self._is_reading = deque(), 0, True

    @property
    def has_room(self):
        return self._in_flight < self._window

    @property
    def is_finished(self):
        return not self._is_reading and not self._in_flight

    def on_message(self, data, received_ns):
        if data == b"wrong":
            self.error = InvalidSessionError("wrong")
            return None
        self._in_flight += 1
        self.most = max(self.most, self._in_flight)
        asyncio.get_running_loop().call_soon(self._answer, data)
        return self.heavy() if data == b"heavy" else None

    def _answer(self, data):
        self._waiting.append(data)
        self._call.output.set()

    def next_message(self):
        if not self._waiting:
            return None
        self._in_flight -= 1
        self._call.room.set()
        return self._waiting.popleft()

    def stop_reading(self):
        self._is_reading = False
        self._call.output.set()

    def abandon(self):
        self.is_abandoned = True


class Rig:
    def __init__(self, context, **options):
        clock = ManualClock()
        self.context = context
        self.calls = StreamCalls(Receptions(ServeSettings(), clock, INFERENCE_STATUS), Permits(4, clock), clock)
        self.call = self.calls.begin(context)
        self.echo = Echo(self.call, **options)

    async def converse(self):
        try:
            await self.call.converse(self.echo, self.context)
        finally:
            self.calls.end(self.call)
            assert self.echo.is_abandoned
            assert not self.calls.open


@on_loop
async def test_every_message_is_answered_in_order_and_no_more_are_read_than_the_window_allows():
    rig = Rig(Context(b"1", b"2", b"3", b"4"), window=2)
    assert rig.calls.open == {rig.call}
    await rig.converse()
    assert rig.context.written == [b"1", b"2", b"3", b"4"]
    assert rig.echo.most <= 2


@on_loop
async def test_an_error_of_the_conversation_ends_the_call_once_what_came_before_is_answered():
    rig = Rig(Context(b"1", b"wrong", b"2"))
    with pytest.raises(InvalidSessionError):
        await rig.converse()
    assert rig.context.written == [b"1"]


@on_loop
async def test_a_message_that_has_to_be_awaited_holds_up_the_next_one():
    rig = Rig(Context(b"heavy", b"2"), window=2)
    order = []

    async def heavy():
        await asyncio.sleep(0)
        order.append(rig.echo.most)

    rig.echo.heavy = heavy
    await rig.converse()
    assert order == [1]
    assert rig.context.written == [b"heavy", b"2"]


@on_loop
async def test_reading_that_is_stopped_from_outside_ends_the_call_as_a_half_close_does():
    rig = Rig(Context(b"1", stays=True))
    task = asyncio.ensure_future(rig.converse())
    while not rig.context.written:
        await asyncio.sleep(0)
    rig.call.stop_reading()
    await task
    assert rig.context.written == [b"1"]


@on_loop
async def test_a_client_that_takes_nothing_is_given_up_though_it_goes_on_sending():
    rig = Rig(Context(b"1", stays=True, takes=False))
    task = asyncio.ensure_future(rig.converse())
    while rig.echo.most == 0:
        await asyncio.sleep(0)
    rig.call.give_up()
    with pytest.raises(SlowReaderError):
        await task


@on_loop
async def test_a_write_that_fails_ends_reading_too_and_its_error_reaches_the_handler():
    class Gone(Context):
        async def write(self, message):
            raise grpc.aio.UsageError("gone")

    rig = Rig(Gone(b"1", stays=True))
    with pytest.raises(grpc.aio.UsageError):
        await rig.converse()


@on_loop
async def test_a_handler_that_is_cancelled_abandons_its_conversation():
    rig = Rig(Context(stays=True))
    task = asyncio.ensure_future(rig.converse())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

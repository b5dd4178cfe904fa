"""The asynchronous client against a real server that follows a script."""

import asyncio
import tempfile

import grpc
import numpy as np
import pytest

import forebay.aio
from forebay import (
    ProtocolError,
    Reconnection,
    SendTimeoutError,
    Status,
    StreamClosedError,
    StreamRefusedError,
    UnreachableError,
)
from forebay.wire import frames_pb2 as wire
from tests.support.guard import HANG_GUARD_S
from tests.support.loops import LoopClock, on_loop
from tests.support.scripted_server import METHOD_SERVICE, scripted

PIXELS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
EVERY = {"model": "m", "encoding": "jpeg", "delivery": "every"}
LATEST = {"model": "m", "encoding": "jpeg"}


async def outcomes(stream):
    return [(result.seq, result.status) async for result in stream]


def ok(*seqs):
    return [(seq, Status.OK) for seq in seqs]


@on_loop
async def test_frames_come_back_in_order():
    async with scripted() as server, forebay.aio.Client(server.address) as client:
        async with client.stream("door", **EVERY) as stream:
            for _ in range(3):
                await stream.send(b"jpeg")
        assert await outcomes(stream) == ok(1, 2, 3)
        assert server.calls[0].open.stream_id == "door"


@on_loop
async def test_first_array_says_how_large_frames_are():
    async with scripted() as server, forebay.aio.Client(server.address) as client:
        async with client.stream("door", model="m") as stream:
            await stream.send(PIXELS)
            await stream.receive()
            with pytest.raises(ValueError, match="the frame is 2x4, the stream was opened with 6x4"):
                await stream.send(PIXELS[:, :2])
        call = server.calls[0]
        assert (call.open.width, call.open.height) == (6, 4)
        assert call.frames[0].payload == PIXELS.tobytes()
        assert call.seqs == [1]


@on_loop
async def test_frame_that_does_not_fit_does_not_say_how_large_frames_are():
    async with scripted() as server, forebay.aio.Client(server.address) as client:
        async with client.stream("door", model="m") as stream:
            with pytest.raises(ValueError, match="uint8"):
                await stream.send(np.zeros((9, 9, 3), np.float32))
            assert await stream.send(PIXELS) == 1
            assert (await stream.receive()).is_ok
        assert server.calls[0].open.width == 6


@on_loop
async def test_stream_whose_size_is_unknown_cannot_be_opened_ahead():
    async with scripted() as server, forebay.aio.Client(server.address) as client:
        stream = client.stream("door", model="m")
        with pytest.raises(ValueError, match="the first frame opens"):
            await stream.open()


@on_loop
async def test_age_and_round_trip_are_told_on_the_clients_clock():
    clock = LoopClock()

    async def script(call):
        await call.accept()
        frame = await call.read()
        clock.advance(0.030)
        await call.answer(frame)
        await call.echo()

    async with (
        scripted(script) as server,
        forebay.aio.Client(server.address, clock=clock, capture_clock_ns=clock.now_ns) as client,
    ):
        stream = client.stream("door", **EVERY)
        await stream.send(b"jpeg", capture_time_ns=clock.now_ns() - 20_000_000, budget_ms=75)
        result = await stream.receive()
        assert (result.age_ms, result.round_trip_ms) == (50.0, 30.0)
        assert server.calls[0].frames[0].latency_budget_ms == 75
        await stream.abort()


@on_loop
async def test_window_of_the_server_bounds_frames_in_flight():
    async def script(call):
        await call.accept(window=2)
        await call.read()
        await call.read()
        full.set()
        await may_answer.wait()
        assert call.seqs == [1, 2]
        await call.answer(1)
        await call.answer(2)
        await call.echo()

    full, may_answer = asyncio.Event(), asyncio.Event()
    async with scripted(script) as server, forebay.aio.Client(server.address) as client:
        stream = client.stream("door", **EVERY, queue_frames=4)
        for _ in range(4):
            await stream.send(b"jpeg")
        await full.wait()
        assert stream.statistics().in_flight == 2
        assert stream.statistics().waiting == 2
        may_answer.set()
        stream.finish()
        assert await outcomes(stream) == ok(1, 2, 3, 4)


@on_loop
async def test_newest_frame_wins_while_the_server_is_slow():
    async def script(call):
        await call.accept(window=1)
        await call.read()
        full.set()
        await may_answer.wait()
        await call.answer(1)
        await call.echo()

    full, may_answer = asyncio.Event(), asyncio.Event()
    async with scripted(script) as server, forebay.aio.Client(server.address) as client:
        stream = client.stream("door", **LATEST)
        await stream.send(b"1")
        await full.wait()
        for number in (2, 3, 4):
            await stream.send(str(number).encode())
        may_answer.set()
        stream.finish()
        expected = [(1, Status.OK), (2, Status.NOT_SENT), (3, Status.NOT_SENT), (4, Status.OK)]
        assert await outcomes(stream) == expected
        assert server.calls[0].seqs == [1, 4]


@on_loop
async def test_blocking_send_gives_up_after_its_time():
    clock = LoopClock()

    async def script(call):
        await call.accept(window=1)
        await call.read()
        read.set()
        await call.read()

    read = asyncio.Event()
    async with scripted(script) as server, forebay.aio.Client(server.address, clock=clock) as client:
        stream = client.stream("door", **EVERY)
        await stream.send(b"1")
        await read.wait()
        await stream.send(b"2")
        sending = asyncio.create_task(stream.send(b"3", timeout_s=0.25))
        await clock.pass_sleep(0.25)
        with pytest.raises(SendTimeoutError, match=r"within 0\.25 s"):
            await sending
        await stream.abort()
        assert await outcomes(stream) == [(1, Status.UNANSWERED), (2, Status.NOT_SENT)]


@on_loop
async def test_map_sends_and_receives_more_than_any_queue_holds():
    async def frames():
        for _ in range(40):
            yield b"jpeg"

    async with scripted() as server, forebay.aio.Client(server.address) as client:
        stream = client.stream("door", **EVERY)
        seqs = [result.seq async for result in stream.map(frames())]
        assert seqs == list(range(1, 41))
        await stream.close()


@on_loop
async def test_map_passes_on_what_the_source_raises():
    async def frames():
        yield b"jpeg"
        raise OSError("camera unplugged")

    async with scripted() as server, forebay.aio.Client(server.address) as client:
        stream = client.stream("door", **EVERY)
        with pytest.raises(OSError, match="camera unplugged"):
            async for _ in stream.map(frames()):
                pass
        await stream.close()


@pytest.mark.parametrize("code", ["NOT_FOUND", "INVALID_ARGUMENT", "FAILED_PRECONDITION", "UNIMPLEMENTED"])
@on_loop
async def test_refused_stream_says_why_and_is_not_tried_again(code):
    async def script(call):
        await call.abort(getattr(grpc.StatusCode, code), "no model 'm'; there are: detector")

    async with scripted(script) as server, forebay.aio.Client(server.address) as client:
        stream = client.stream("door", **EVERY)
        with pytest.raises(StreamRefusedError, match="there are: detector") as caught:
            await stream.open()
        assert caught.value.code == code
        with pytest.raises(StreamRefusedError):
            await stream.send(b"jpeg")
        with pytest.raises(StreamRefusedError):
            await stream.receive()
        assert len(server.calls) == 1


@on_loop
async def test_server_that_is_not_there_is_named_in_the_error():
    clock = LoopClock()
    limits = Reconnection(connect_timeout_s=0.5)
    async with forebay.aio.Client("127.0.0.1:1", clock=clock, reconnection=limits, draw=lambda: 1.0) as client:
        stream = client.stream("door", **EVERY)
        opening = asyncio.create_task(stream.open())
        for delay_s in (0.1, 0.2):
            await clock.pass_sleep(delay_s)
        with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:1 within 0\.5 s; the last try: UNAVAILABLE"):
            await opening


@pytest.mark.parametrize(
    "message",
    [
        wire.ServerMessage(result=wire.Result(seq=1)),
        wire.ServerMessage(heartbeat=wire.Heartbeat()),
        wire.ServerMessage(),
    ],
)
@on_loop
async def test_server_that_does_not_speak_the_protocol_is_an_error(message):
    async def script(call):
        await call.context.write(message)
        await call.read()

    async with scripted(script) as server, forebay.aio.Client(server.address) as client:
        with pytest.raises(ProtocolError, match="where Opened was due"):
            await client.stream("door", **EVERY).open()


@on_loop
async def test_result_that_cannot_be_read_is_an_error_and_its_frame_is_unanswered():
    async def script(call):
        await call.accept()
        await call.answer(await call.read(), tensors=[wire.Tensor(name="t", datatype="FP31")])
        await call.read()

    async with scripted(script) as server, forebay.aio.Client(server.address) as client:
        stream = client.stream("door", **EVERY)
        await stream.send(b"jpeg")
        assert (await stream.receive()).status is Status.UNANSWERED
        with pytest.raises(ProtocolError, match="FP31"):
            await stream.receive()


@on_loop
async def test_answers_in_the_wrong_order_are_counted_and_still_come_out_in_order():
    async def script(call):
        await call.accept()
        await call.read()
        await call.read()
        await call.answer(2)
        await call.answer(1)
        await call.echo()

    async with scripted(script) as server, forebay.aio.Client(server.address) as client:
        stream = client.stream("door", **EVERY, queue_frames=2)
        await stream.send(b"1")
        await stream.send(b"2")
        await stream.close()
        assert await outcomes(stream) == [(1, Status.UNANSWERED), (2, Status.OK)]
        assert stream.statistics().out_of_order == 2


@on_loop
async def test_busy_server_is_left_alone_for_as_long_as_it_asks():
    clock = LoopClock()

    async def script(call):
        await call.accept()
        await call.answer(await call.read(), code=wire.STATUS_OVERLOADED, text="full", retry_after_ms=80)
        await call.echo()

    async with scripted(script) as server, forebay.aio.Client(server.address, clock=clock) as client:
        stream = client.stream("door", **EVERY)
        await stream.send(b"1")
        result = await stream.receive()
        assert (result.status, result.message, result.retry_after_ms) == (Status.OVERLOADED, "full", 80)
        await stream.send(b"2")
        await clock.pass_sleep(0.08)
        assert (await stream.receive()).status is Status.OK
        assert server.calls[0].seqs == [1, 2]
        await stream.abort()


@on_loop
async def test_closing_a_server_that_never_answers_ends_after_its_time():
    clock = LoopClock()

    async def script(call):
        await call.accept()
        await call.read()
        read.set()
        await never.wait()

    read, never = asyncio.Event(), asyncio.Event()
    async with scripted(script) as server, forebay.aio.Client(server.address, clock=clock) as client:
        stream = client.stream("door", **EVERY)
        await stream.send(b"1")
        await read.wait()
        closing = asyncio.create_task(stream.close(timeout_s=3))
        await clock.pass_sleep(3)
        await closing
        assert await outcomes(stream) == [(1, Status.UNANSWERED)]


@on_loop
async def test_server_that_answers_but_does_not_end_the_call_does_not_hold_up_closing():
    clock = LoopClock()

    async def script(call):
        await call.accept()
        await call.echo()
        await never.wait()

    never = asyncio.Event()
    async with scripted(script) as server, forebay.aio.Client(server.address, clock=clock) as client:
        stream = client.stream("door", **EVERY)
        await stream.send(b"1")
        closing = asyncio.create_task(stream.close(timeout_s=60))
        await clock.pass_sleep(1.0)
        await closing
        assert await outcomes(stream) == ok(1)


@on_loop
async def test_server_that_opens_a_stream_after_its_end_has_no_more_time_to_end_it():
    clock = LoopClock()

    async def script(call):
        await call.context.read()  # Open
        asked.set()
        assert await call.context.read() is grpc.aio.EOF
        await call.context.write(wire.ServerMessage(opened=wire.Opened(window=1, heartbeat_interval_s=9)))
        await never.wait()

    asked, never = asyncio.Event(), asyncio.Event()
    async with scripted(script) as server, forebay.aio.Client(server.address, clock=clock) as client:
        stream = client.stream("door", **EVERY)
        opening = asyncio.create_task(stream.open())
        await asked.wait()
        stream.finish()
        await opening
        await clock.pass_sleep(1.0)
        assert await outcomes(stream) == []


@on_loop
async def test_closed_stream_takes_no_frames():
    async with scripted() as server, forebay.aio.Client(server.address) as client:
        async with client.stream("door", **EVERY) as stream:
            pass
        with pytest.raises(StreamClosedError, match="no more frames"):
            await stream.send(b"jpeg")
        assert await stream.receive() is None
        await stream.close()


@on_loop
async def test_stream_that_was_never_used_is_closed_without_a_call():
    async with scripted() as server, forebay.aio.Client(server.address) as client:
        await client.stream("door", model="m").close()
        assert server.calls == []


@on_loop
async def test_error_in_the_block_aborts_the_stream():
    async with scripted() as server, forebay.aio.Client(server.address) as client:
        with pytest.raises(KeyError):
            async with client.stream("door", **EVERY) as stream:
                raise KeyError("the user's own")
        assert await stream.receive() is None


@on_loop
async def test_closing_the_client_ends_its_streams():
    async def script(call):
        await call.accept()
        await call.read()
        read.set()
        await call.read()

    read = asyncio.Event()
    async with scripted(script) as server:
        client = forebay.aio.Client(server.address)
        stream = client.stream("door", **EVERY)
        await stream.send(b"jpeg")
        await read.wait()
        await client.close()
        assert await outcomes(stream) == [(1, Status.UNANSWERED)]


@on_loop
async def test_receiving_gives_up_after_its_time():
    clock = LoopClock()
    async with scripted() as server, forebay.aio.Client(server.address, clock=clock) as client:
        stream = client.stream("door", **EVERY)
        receiving = asyncio.create_task(stream.receive(timeout_s=0.3))
        await clock.pass_sleep(0.3)
        assert await receiving is None
        assert not stream.has_ended
        await stream.abort()
        assert stream.has_ended


@on_loop
async def test_two_cameras_share_a_client():
    async with scripted() as server, forebay.aio.Client(server.address) as client:
        async with client.stream("left", **EVERY) as left, client.stream("right", **EVERY) as right:
            await left.send(b"l")
            await right.send(b"r")
            assert (await left.receive()).is_ok
            assert (await right.receive()).is_ok
        assert {call.open.stream_id for call in server.calls} == {"left", "right"}


@on_loop
async def test_unix_socket_is_an_address_like_any_other():
    with tempfile.TemporaryDirectory() as folder:  # short: a socket's path is limited to 107 bytes
        async with (
            scripted(address=f"unix:{folder}/s") as server,
            forebay.aio.Client(server.address) as client,
            client.stream("door", **EVERY) as stream,
        ):
            await stream.send(b"jpeg")
            assert (await stream.receive()).is_ok


@on_loop
async def test_the_call_of_one_picture_is_left_to_end():
    """A cancelled call is one that broke, to the server."""
    ended = []

    async def ends_after_its_answer(call):
        await call.accept()
        await call.echo()
        await asyncio.sleep(0.05)  # the answer is on its way before the end
        ended.append(call.open.stream_id)

    async with scripted(ends_after_its_answer) as server, forebay.aio.Client(server.address) as client:
        result = await client.infer(b"\xff\xd8\xff", model="m")
    assert result.status is Status.OK
    assert ended == ["picture"]


class _CountingLoop(asyncio.SelectorEventLoop):
    """Counts the callbacks of the client that come as from another thread: each writes to the loop's own socket."""

    wakes = 0

    def call_soon_threadsafe(self, callback, *arguments, **options):
        self.wakes += callback.__module__.startswith("forebay.")
        return super().call_soon_threadsafe(callback, *arguments, **options)


def test_a_frame_that_is_sent_on_the_loop_does_not_wake_it_through_its_socket():
    async def send_some():
        async with (
            scripted() as server,
            forebay.aio.Client(server.address) as client,
            client.stream("door", **EVERY) as stream,
        ):
            before = asyncio.get_running_loop().wakes
            for _ in range(20):
                await stream.send(b"jpeg")
                assert (await stream.receive()).is_ok
            return asyncio.get_running_loop().wakes - before

    with asyncio.Runner(loop_factory=_CountingLoop) as runner:
        assert runner.run(asyncio.wait_for(send_some(), HANG_GUARD_S)) == 0


@on_loop
async def test_bytes_that_are_no_message_end_the_stream_with_a_word():
    async def answer_wrongly(_request_iterator, context):
        await context.read()
        await context.write(b"\xff\xff")
        await context.read()

    server = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(answer_wrongly)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(METHOD_SERVICE, {"Stream": handler}),))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        async with forebay.aio.Client(address) as client:
            with pytest.raises(ProtocolError, match="no message of the protocol"):
                await client.stream("door", **EVERY).open()
    finally:
        await server.stop(None)

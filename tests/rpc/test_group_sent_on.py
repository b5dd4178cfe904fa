"""A stream that was asked to go and comes back to another front-end process of the same server: with real processes."""

import contextlib

import grpc
import grpc.aio

from forebay.wire import streams_pb2 as control
from forebay.wire.streams_pb2_grpc import StreamControlStub
from tests.rpc.test_front_ends import flags
from tests.support.loops import on_loop
from tests.support.real_server import RawStream
from tests.support.serve_process import serve

CONNECTIONS = 16  # that all meet one of two processes is a matter of 2^-15


async def opened_anew(stack, address, attempt):
    """A call for a stream that was open before, on a connection of its own: processes are dealt connections."""
    own = [("grpc.use_local_subchannel_pool", 1)]
    channel = await stack.enter_async_context(grpc.aio.insecure_channel(address, options=own))
    stream = RawStream(channel, (("forebay-attempt", str(attempt)),))
    await stream.send_open(stream_id="door", resume_from=2)
    return stream


@on_loop
async def test_every_process_sends_a_stream_on_that_one_of_them_has_asked_to_go(tmp_path):
    arguments, environment = flags(tmp_path)
    async with serve(*arguments, environment=environment) as server, contextlib.AsyncExitStack() as stack:
        address = await server.wait_ready()
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
        stream = RawStream(channel)
        await stream.send_open(stream_id="door")
        assert (await stream.receive()).HasField("opened")
        streams = StreamControlStub(channel)
        assert (await streams.MoveStreams(control.MoveStreamsRequest(count=1))).asked == 1
        assert (await stream.receive()).HasField("reconnect")
        await stream.half_close()
        assert await stream.results() == []
        for _ in range(CONNECTIONS):
            code, _ = await (await opened_anew(stack, address, 1)).status()
            assert code is grpc.StatusCode.UNAVAILABLE
        taken = [await opened_anew(stack, address, 4) for _ in range(CONNECTIONS)]
        for each in taken:
            assert (await each.receive()).HasField("opened")
        listed = await streams.ListStreams(control.ListStreamsRequest())
        assert {line.front_end for line in listed.streams} == {0, 1}
        for each in taken:
            await each.half_close()
            assert await each.results() == []
        await stack.aclose()
        assert await server.end() == 0

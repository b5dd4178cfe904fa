"""Operators list the open streams of a server and have some of them go to other servers; in both forms of a server."""

import asyncio
from types import SimpleNamespace

import grpc
import pytest

from forebay.wire import frames_pb2, streams_pb2_grpc
from forebay.wire import streams_pb2 as pb
from forebay_server.service.frontend.connections import is_of_this_machine
from forebay_server.service.frontend.control.streams import StreamRpcs, stream_control_handler
from forebay_server.service.frontend.statuses import StatusError
from forebay_server.service.load.listing import NO_STREAMS
from forebay_server.service.load.overload import STAY_NS
from tests.rpc.test_elsewhere import REQUEST
from tests.rpc.test_inference_statistics import get, samples
from tests.support.inference import stub_of
from tests.support.loops import on_loop
from tests.support.real_server import real_server, simulated


def control_of(running):
    return streams_pb2_grpc.StreamControlStub(running.channel)


async def lines_of(running):
    """The streams by name, in the order of the list."""
    listed = await control_of(running).ListStreams(pb.ListStreamsRequest())
    return {line.stream_id: line for line in listed.streams}


@on_loop
async def test_a_list_says_of_each_stream_what_it_costs_and_whether_it_can_move(tmp_path):
    async with real_server(simulated(tmp_path)) as running:
        assert await control_of(running).ListStreams(pb.ListStreamsRequest()) == pb.ListStreamsResponse()
        light, heavy, came = [
            await running.open(stream_id=name, **more)
            for name, more in (("light", {}), ("heavy", {}), ("came", {"resume_from": 5}))
        ]
        by_name = {stream.session.config.stream_id: stream for stream in running.server.frames.streams}
        by_name["heavy"].load = 0.5
        await heavy.send(1)
        assert (await heavy.result()).status.code == frames_pb2.STATUS_OK
        found = await lines_of(running)
        assert list(found) == ["heavy", "light", "came"]
        assert [line.placement for line in found.values()] == [pb.PLACEMENT_MOVABLE] * 2 + [pb.PLACEMENT_STAYS]
        line = found["heavy"]
        assert (line.model, line.model_version, line.frames, line.has_state) == ("sim", "1", 1, False)
        assert line.load > 0
        assert line.age_s > 0
        assert (line.is_resumed, found["came"].is_resumed) == (False, True)
        by_name["came"].call.opened_ns -= STAY_NS
        assert (await lines_of(running))["came"].placement == pb.PLACEMENT_MOVABLE
        for stream in (light, heavy, came):
            await stream.half_close()
            assert await stream.results() == []


@on_loop
async def test_streams_that_an_operator_moves_are_asked_to_go_elsewhere(tmp_path):
    async with real_server(simulated(tmp_path), admin_address="127.0.0.1:0") as running:
        light, heavy = [await running.open(stream_id=name) for name in ("light", "heavy")]
        by_name = {stream.session.config.stream_id: stream for stream in running.server.frames.streams}
        by_name["heavy"].load = 0.5
        assert (await control_of(running).MoveStreams(pb.MoveStreamsRequest(count=1))).asked == 1
        expected = frames_pb2.Reconnect(reason=frames_pb2.Reconnect.REASON_ELSEWHERE, grace_ms=5000)
        assert (await heavy.receive()).reconnect == expected
        found = await lines_of(running)
        assert found["heavy"].placement == pb.PLACEMENT_LEAVING
        await light.send(1)
        assert (await light.result()).status.code == frames_pb2.STATUS_OK
        assert light.controls == []
        assert (await control_of(running).MoveStreams(pb.MoveStreamsRequest(count=9))).asked == 1
        assert (await light.receive()).reconnect == expected
        assert (await control_of(running).MoveStreams(pb.MoveStreamsRequest(count=9))).asked == 0
        await running.told()
        _, text = await get(running.server.admin_address)
        assert samples(text)['forebay_streams_asked_to_leave_total{why="operator"}'] == 2
        for stream in (light, heavy):
            await stream.half_close()
            assert await stream.results() == []


@on_loop
async def test_streams_of_the_other_protocol_are_counted(tmp_path):
    async with real_server(simulated(tmp_path)) as running:
        call = stub_of(running).ModelStreamInfer()
        await call.write(REQUEST)
        await call.read()
        listed = await control_of(running).ListStreams(pb.ListStreamsRequest())
        assert listed == pb.ListStreamsResponse(inference_streams=1)
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF


@on_loop
async def test_moving_none_is_a_mistake(tmp_path):
    async with real_server(simulated(tmp_path)) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await control_of(running).MoveStreams(pb.MoveStreamsRequest())
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "give the number of streams" in caught.value.details()


@pytest.mark.parametrize(
    ("peer", "is_here"),
    [
        ("ipv4:127.0.0.1:5000", True),
        ("ipv6:%5B::1%5D:5000", True),
        ("ipv6:%5B::ffff:127.0.0.1%5D:5000", True),
        ("unix:", True),
        ("ipv4:10.0.0.7:5000", False),
        ("ipv6:%5Bfe80::1%25eth0%5D:5000", False),
        ("", False),
        ("vsock:3:5000", False),
    ],
)
def test_a_peer_is_on_this_machine_or_not(peer, is_here):
    assert is_of_this_machine(peer) == is_here


@pytest.mark.parametrize("is_restricted", [False, True])
def test_clients_on_other_machines_need_the_header(is_restricted):
    context = SimpleNamespace(peer=lambda: "ipv4:10.0.0.7:5000")
    details = SimpleNamespace(method="/forebay.v1.StreamControl/MoveStreams")
    control = stream_control_handler(StreamRpcs(lambda: NO_STREAMS, lambda count: count), is_restricted=is_restricted)
    call = control.service(details).unary_unary(pb.MoveStreamsRequest(count=3).SerializeToString(), context)
    if is_restricted:
        assert asyncio.run(call).asked == 3
    else:
        with pytest.raises(StatusError, match="restricted_protocol streams:KEY=VALUE") as caught:
            asyncio.run(call)
        assert caught.value.code is grpc.StatusCode.PERMISSION_DENIED


@on_loop
async def test_both_calls_may_be_restricted(tmp_path):
    async with real_server(simulated(tmp_path), restricted_protocol=("streams:admin=s3cret",)) as running:
        control, key = control_of(running), (("triton-grpc-protocol-admin", "s3cret"),)
        for call, request in (
            (control.ListStreams, pb.ListStreamsRequest()),
            (control.MoveStreams, pb.MoveStreamsRequest(count=1)),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(request)
            assert "expecting header 'triton-grpc-protocol-admin'" in caught.value.details()
            await call(request, metadata=key)

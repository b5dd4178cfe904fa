"""A server with too much to do asks streams to go elsewhere, and tells balancers its load."""

import asyncio
from dataclasses import replace

import grpc
import pytest

from forebay.wire import frames_pb2 as pb
from forebay.wire import orca_load_report_pb2, orca_pb2
from forebay_server.service.frontend.frames.track_request import TrackRequest
from forebay_server.service.frontend.load_reports import TRAILER
from forebay_server.service.journal.streams import OPENED_HOW
from forebay_server.service.load.meter import Load
from forebay_server.service.load.overload import SETTLED_NS, Wish
from forebay_server.service.tracks.settings import TrackSettings
from tests.rpc.test_elsewhere import FRAMES, INFER, REQUEST, answer_to, is_for_elsewhere
from tests.rpc.test_inference_statistics import get, samples
from tests.support import http2 as h
from tests.support.guard import HANG_GUARD_S
from tests.support.loops import on_loop
from tests.support.real_server import eventually, open_message, real_server, simulated

LOAD = Load(busy=0.5, not_in_time=0.0, requests_per_s=12.5, failures_per_s=0.25)
METRICS = "/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics"


def moving_of(running):
    """Return the part that decides: in the second form it is in the engine process."""
    server = running.server
    return server.engine.moving if hasattr(server, "engine") else server.moving


async def publish(running, load):
    """Have the server report a load; its own look is a second away."""
    moving_of(running)._publish(load)
    if hasattr(running.server, "engine"):
        await running.told()  # messages keep their order


@on_loop
async def test_streams_are_asked_the_heaviest_first_and_those_that_came_from_elsewhere_later(tmp_path):
    async with real_server(simulated(tmp_path), move_streams=True, admin_address="127.0.0.1:0") as running:
        frames = running.server.frames
        light, heavy, came = [
            await running.open(stream_id=name, **more)
            for name, more in (("light", {}), ("heavy", {}), ("came", {"resume_from": 5}))
        ]
        by_name = {stream.session.config.stream_id: stream for stream in frames.streams}
        by_name["heavy"].load, by_name["came"].load = 0.5, 0.9
        assert frames.weights() == [(False, 0.5), (False, 0.0)]
        by_name["came"].call.opened_ns -= SETTLED_NS
        assert frames.weights() == [(False, 0.9), (False, 0.5), (False, 0.0)]
        config = by_name["heavy"].session.config
        by_name["heavy"].session.config = replace(config, tracks=TrackRequest(TrackSettings(), 0.1, b""))
        assert frames.weights() == [(False, 0.9), (False, 0.0), (True, 0.5)]
        by_name["heavy"].session.config = config
        await running.told()
        assert moving_of(running)._ask(Wish(2, 2.0)) == 2
        for stream in (came, heavy):
            message = await stream.receive()
            assert message.reconnect == pb.Reconnect(reason=pb.Reconnect.REASON_ELSEWHERE, grace_ms=5000)
        await light.send(1)
        assert (await light.result()).status.code == pb.STATUS_OK
        assert light.controls == []
        await running.told()
        _, text = await get(running.server.admin_address)
        assert samples(text)['forebay_streams_asked_to_leave_total{why="overload"}'] == 2
        for stream in (light, heavy, came):
            await stream.half_close()
            assert await stream.results() == []


@on_loop
async def test_streams_that_come_while_others_are_asked_to_go_are_sent_on_if_they_are_tried_again(tmp_path):
    """A proxy that counts streams sends them back; it says which attempt a call is."""
    async with real_server(simulated(tmp_path), move_streams=True, admin_address="127.0.0.1:0") as running:
        stream = await running.open(stream_id="door")
        await running.told()
        assert moving_of(running)._ask(Wish(1, 1.0)) == 1
        assert (await stream.receive()).HasField("reconnect")
        await stream.half_close()
        assert await stream.results() == []
        again = pb.ClientMessage(open=open_message(stream_id="door", resume_from=2))
        for key, attempt in [("x-envoy-attempt-count", "1"), ("forebay-attempt", "3")]:
            assert is_for_elsewhere(await answer_to(running.address, FRAMES, again, ((key, attempt),)))
        opened = [
            await running.open(stream_id="new", metadata=(("x-envoy-attempt-count", "1"),)),
            await running.open(stream_id="of a client that does not say", resume_from=2),
            await running.open(stream_id="door", resume_from=2, metadata=(("x-envoy-attempt-count", "4"),)),
        ]
        await running.told()
        _, text = await get(running.server.admin_address)
        assert samples(text)['forebay_streams_refused_total{why="asked"}'] == 2
        for each in opened:
            await each.half_close()
            assert await each.results() == []


@on_loop
async def test_streams_that_come_to_a_server_without_room_are_sent_on_and_counted_when_they_are_taken(tmp_path):
    async with real_server(simulated(tmp_path), move_streams=True, admin_address="127.0.0.1:0") as running:
        moving_of(running).stop()
        await publish(running, replace(LOAD, has_room=False))
        came = pb.ClientMessage(open=open_message(stream_id="door", resume_from=2))
        assert is_for_elsewhere(await answer_to(running.address, FRAMES, came, (("forebay-attempt", "1"),)))
        taken = await running.open(stream_id="door", resume_from=2, metadata=(("forebay-attempt", "4"),))
        await publish(running, LOAD)
        welcome = await running.open(stream_id="yard", resume_from=2, metadata=(("forebay-attempt", "1"),))
        await running.told()
        _, text = await get(running.server.admin_address)
        opened = {how: samples(text)[f'forebay_streams_opened_total{{how="{how}"}}'] for how in OPENED_HOW}
        assert opened == {"new": 0, "resumed": 1, "unwanted": 1}
        for each in (taken, welcome):
            await each.half_close()
            assert await each.results() == []


@on_loop
async def test_the_load_is_read_from_executions_and_late_frames(tmp_path):
    async with real_server(simulated(tmp_path), admin_address="127.0.0.1:0") as running:
        moving = moving_of(running)
        moving.stop()
        stream = await running.open()
        await running.told()
        moving.look()
        for seq in range(1, 5):
            await stream.send(seq, latency_budget_ms=0.0 if seq == 1 else 3600_000)
        assert [result.status.code for result in await stream.results(4)] == [pb.STATUS_EXPIRED] + 3 * [pb.STATUS_OK]
        await running.told()
        moving.look()
        assert moving.load.not_in_time == 0.25
        assert moving.load.utilization >= 1
        assert moving.load.requests_per_s > 0
        _, text = await get(running.server.admin_address)
        assert samples(text)["forebay_load"] == pytest.approx(moving.load.utilization)
        await stream.half_close()
        assert await stream.results() == []


@on_loop
async def test_balancers_get_the_load_again_and_again_until_a_drain(tmp_path):
    async with real_server(simulated(tmp_path)) as running:
        moving_of(running).stop()
        await publish(running, LOAD)
        request = orca_pb2.OrcaLoadReportRequest(report_interval=orca_pb2.ReportInterval(nanos=1))
        call = running.channel.unary_stream(METRICS)(request.SerializeToString())
        expected = orca_load_report_pb2.OrcaLoadReport(
            application_utilization=0.5,
            rps_fractional=12.5,
            eps=0.25,
            named_metrics={"execute_busy": 0.5, "not_in_time": 0.0},
        )
        async with asyncio.timeout(HANG_GUARD_S):
            for _ in range(2):
                assert orca_load_report_pb2.OrcaLoadReport.FromString(await call.read()) == expected
        wrong = running.channel.unary_stream(METRICS)(b"\xff")
        assert await wrong.code() is grpc.StatusCode.INVALID_ARGUMENT
        draining = asyncio.create_task(running.server.front_end.drain())
        await eventually(draining.done)
        assert await call.read() is grpc.aio.EOF


@on_loop
async def test_a_single_request_brings_the_load(tmp_path):
    async with real_server(simulated(tmp_path)) as running:
        moving_of(running).stop()
        await publish(running, LOAD)
        frames = await answer_to(running.address, INFER, REQUEST)
        assert [kind for kind, _, _ in frames] == [h.HEADERS, h.DATA, h.HEADERS]
        expected = running.server.front_end.load_reports.trailer[0][1]
        assert orca_load_report_pb2.OrcaLoadReport.FromString(expected).application_utilization == 0.5
        assert TRAILER.encode() in frames[-1][2]  # gRPC's own clients keep it from their callers
        assert expected in frames[-1][2]

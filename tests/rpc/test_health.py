"""grpc.health.v1 on the port of the streams: the whole server and each model, once and watched."""

import asyncio

import grpc
import pytest

from forebay.wire import health_pb2, health_pb2_grpc
from tests.support.loops import on_loop
from tests.support.real_server import eventually, real_server, simulated

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


def request(service=""):
    return health_pb2.HealthCheckRequest(service=service)


@on_loop
async def test_server_and_models_are_serving_once_they_listen(tmp_path):
    async with real_server(simulated(simulated(tmp_path, "one"), "two")) as running:
        health = health_pb2_grpc.HealthStub(running.channel)
        for service in ("", "one", "two"):
            assert (await health.Check(request(service))).status == SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await health.Check(request("three"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@on_loop
async def test_a_watch_tells_every_change_and_does_not_hold_up_the_drain(tmp_path):
    async with real_server(simulated(tmp_path), drain_grace_s=3600) as running:
        health = health_pb2_grpc.HealthStub(running.channel)
        watches = {service: health.Watch(request(service)) for service in ("", "sim", "later")}
        told = {service: (await watch.read()).status for service, watch in watches.items()}
        assert told == {"": SERVING, "sim": SERVING, "later": UNKNOWN}
        servicer = running.server.front_end.health
        servicer.set("sim", is_serving=False)
        servicer.set("later", is_serving=True)
        assert (await watches["sim"].read()).status == NOT_SERVING
        assert (await watches["later"].read()).status == SERVING
        await running.server.front_end.drain()
        assert (await watches[""].read()).status == NOT_SERVING
        assert (await watches["later"].read()).status == NOT_SERVING
        for watch in watches.values():
            assert await watch.read() is grpc.aio.EOF
            assert await watch.code() is grpc.StatusCode.OK
        servicer.set("sim", is_serving=True)  # too late
        assert servicer._statuses["sim"] == NOT_SERVING


@on_loop
async def test_a_watcher_that_leaves_is_forgotten(tmp_path):
    async with real_server(simulated(tmp_path)) as running:
        watch = health_pb2_grpc.HealthStub(running.channel).Watch(request())
        await watch.read()
        before = len(asyncio.all_tasks())
        watch.cancel()
        await eventually(lambda: len(asyncio.all_tasks()) < before)


@on_loop
async def test_the_health_of_everything_is_listed(tmp_path):
    async with real_server(simulated(simulated(tmp_path, "one"), "two")) as running:
        health = health_pb2_grpc.HealthStub(running.channel)
        running.server.front_end.health.set("two", is_serving=False)
        listed = (await health.List(health_pb2.HealthListRequest())).statuses
        assert {name: status.status for name, status in listed.items()} == {
            "": SERVING,
            "one": SERVING,
            "two": NOT_SERVING,
        }


@on_loop
async def test_bytes_that_are_no_request_are_refused_and_never_unknown(tmp_path):
    async with real_server(simulated(tmp_path)) as running:
        for call in (
            running.channel.unary_unary("/grpc.health.v1.Health/Check")(b"\xff\xff"),
            running.channel.unary_stream("/grpc.health.v1.Health/Watch")(b"\xff\xff"),
        ):
            assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert await call.details() == "the message is no HealthCheckRequest"

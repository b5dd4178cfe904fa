"""Calls that need a header: which, and on which service."""

import asyncio
import os
import sys
from types import SimpleNamespace

import grpc
import pytest

import forebay
import forebay.aio
from forebay.wire import health_pb2, health_pb2_grpc, reflection_pb2, reflection_v1alpha_pb2, streams_pb2
from forebay.wire import inference_pb2 as pb
from forebay_server.service.clock import MonotonicClock
from forebay_server.service.frontend.open_inference.errors import INFERENCE_STATUS
from forebay_server.service.frontend.reception.receptions import Receptions
from forebay_server.service.frontend.restrictions import CATEGORIES, Restrictions
from forebay_server.service.restricted import CATEGORIES as RESTRICTED_CATEGORIES
from forebay_server.service.settings import ServeSettings, SettingsError, load_settings
from tests.support.inference import stub_of
from tests.support.loops import on_loop
from tests.support.real_server import real_server, simulated
from tests.support.repository import ROOT

KEY = (("triton-grpc-protocol-admin", "s3cret"),)
WRONG = (("triton-grpc-protocol-admin", "guess"), ("triton-grpc-protocol-other", "s3cret"))


async def refusal(call):
    return await call.code(), await call.details()


@on_loop
async def test_a_restricted_call_needs_its_header(tmp_path):
    simulated(tmp_path)
    restricted = ("model-repository,statistics:admin=s3cret", "inference:use=me")
    async with real_server(tmp_path, restricted_protocol=restricted) as running:
        stub = stub_of(running)
        index = pb.RepositoryIndexRequest()
        expected = (
            grpc.StatusCode.UNAVAILABLE,
            "This protocol is restricted, expecting header 'triton-grpc-protocol-admin'",
        )
        assert await refusal(stub.RepositoryIndex(index)) == expected
        assert await refusal(stub.RepositoryIndex(index, metadata=WRONG)) == expected
        assert len((await stub.RepositoryIndex(index, metadata=KEY)).models) == 1
        assert (await stub.ServerReady(pb.ServerReadyRequest())).ready
        for call in (stub.ModelStreamInfer(), running.stream().call):
            code, message = await refusal(call)
            assert code is grpc.StatusCode.UNAVAILABLE
            assert "'triton-grpc-protocol-use'" in message


@on_loop
async def test_health_may_be_restricted_with_its_watch(tmp_path):
    simulated(tmp_path)
    async with real_server(tmp_path, restricted_protocol=("health:admin=s3cret",)) as running:
        health = health_pb2_grpc.HealthStub(running.channel)
        request = health_pb2.HealthCheckRequest()
        for call in (health.Check(request), health.Watch(request)):
            assert await call.code() is grpc.StatusCode.UNAVAILABLE
        assert (await health.Check(request, metadata=KEY)).status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("value", ["s3cr\xe9t", "\udce9", b"\xff", ""])
@on_loop
async def test_a_value_that_is_no_ascii_is_refused_like_any_wrong_one(value):
    """gRPC's own clients send no such header; a hand-made one may."""
    call = "/grpc.health.v1.Health/Check"
    handler = grpc.unary_unary_rpc_method_handler(lambda data, context: data)
    details = SimpleNamespace(method=call, invocation_metadata=[(KEY[0][0], value)])

    async def find(details):
        return handler

    receptions = Receptions(ServeSettings(), MonotonicClock(), INFERENCE_STATUS)
    restrictions = Restrictions({"health": ("admin", "s3cret")}, receptions)
    assert await restrictions.intercept_service(find, details) is not handler
    details.invocation_metadata.append(KEY[0])
    assert await restrictions.intercept_service(find, details) is handler


@on_loop
async def test_the_client_library_brings_headers_and_takes_a_restriction_for_a_refusal(tmp_path):
    async with (
        real_server(simulated(tmp_path), restricted_protocol=("inference:admin=s3cret",)) as running,
        forebay.aio.Client(running.address) as client,
    ):
        with pytest.raises(forebay.StreamRefusedError, match="expecting header 'triton-grpc-protocol-admin'"):
            await client.stream("door", model="sim", encoding="tensor").open()
        stream = client.stream("door", model="sim", encoding="tensor", headers=dict(KEY))
        await stream.open()
        await stream.close()


def test_every_call_of_every_service_is_in_one_category():
    services = {
        "/inference.GRPCInferenceService/": pb.DESCRIPTOR.services_by_name["GRPCInferenceService"],
        "/grpc.health.v1.Health/": health_pb2.DESCRIPTOR.services_by_name["Health"],
        "/forebay.v1.StreamControl/": streams_pb2.DESCRIPTOR.services_by_name["StreamControl"],
        **{
            f"/{module.DESCRIPTOR.package}.ServerReflection/": module.DESCRIPTOR.services_by_name["ServerReflection"]
            for module in (reflection_pb2, reflection_v1alpha_pb2)
        },
    }
    calls = [prefix + method.name for prefix, service in services.items() for method in service.methods]
    assert tuple(CATEGORIES) == RESTRICTED_CATEGORIES
    named = [call for category in CATEGORIES.values() for call in category]
    assert sorted(named) == sorted([*calls, "/forebay.v1.FrameInference/Stream"])


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("repository:a=b", "no category 'repository'; there are health, metadata"),
        ("health:a=b;health:c=d", "category 'health' is named twice"),
        ("health", "must be CATEGORY"),
        ("health:=x", "must be CATEGORY"),
        ("health:a=", "must be CATEGORY"),
        ("health:Admin=x", "KEY in small letters"),
    ],
)
def test_a_restriction_that_cannot_be_meant_is_told(line, words, monkeypatch):
    monkeypatch.setenv("FOREBAY_RESTRICTED_PROTOCOL", line)
    with pytest.raises(SettingsError, match=words):
        load_settings({}, None, {"FOREBAY_RESTRICTED_PROTOCOL": line})


async def command(*arguments, **environment):
    """Exit code and output of `forebay` in a separate process."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "forebay_server.service", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=ROOT,
        env={**os.environ, **environment},
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


@pytest.mark.parametrize(
    ("arguments", "category"),
    [(("models", "list"), "model-repository"), (("health",), "health")],
    ids=["models", "health"],
)
@on_loop
async def test_the_command_line_brings_the_header_or_says_how_to(tmp_path, arguments, category):
    restricted = (f"{category}:admin=s3cret",)
    async with real_server(simulated(tmp_path), restricted_protocol=restricted) as running:
        where = (*arguments, "--address", running.address)
        code, output = await command(*where)
        assert code == 1
        assert "does not answer" not in output
        assert "This protocol is restricted, expecting header 'triton-grpc-protocol-admin'" in output
        assert f"give --restricted-protocol {category}:KEY=VALUE, or the same in FOREBAY_RESTRICTED_PROTOCOL" in output
        assert (await command(*where, "--restricted-protocol", f"{category}:admin=guess"))[0] == 1
        assert (await command(*where, "--restricted-protocol", restricted[0]))[0] == 0
        several = f"statistics:other=x;{restricted[0]}"
        assert (await command(*where, FOREBAY_RESTRICTED_PROTOCOL=several))[0] == 0
        code, output = await command(*where, "--restricted-protocol", "admin=s3cret")
        assert code == 2
        assert "forebay: --restricted-protocol: restricted_protocol must be CATEGORY" in output

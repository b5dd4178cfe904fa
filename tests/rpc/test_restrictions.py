"""Calls that need a header: which, and on which service."""

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from forebay.wire import inference_pb2 as pb
from service.frontend.restrictions import CATEGORIES
from service.settings import RESTRICTED_CATEGORIES, SettingsError, load_settings
from tests.support.inference import stub_of
from tests.support.loops import on_loop
from tests.support.real_server import real_server, simulated

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


def test_every_call_of_every_service_is_in_one_category():
    services = {
        "/inference.GRPCInferenceService/": pb.DESCRIPTOR.services_by_name["GRPCInferenceService"],
        "/grpc.health.v1.Health/": health_pb2.DESCRIPTOR.services_by_name["Health"],
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

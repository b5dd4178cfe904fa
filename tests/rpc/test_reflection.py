"""Server reflection by a real client over a real server, in both forms of it; and its bounds."""

import asyncio

import grpc
import pytest

from forebay.wire import (
    reflection_pb2,
    reflection_pb2_grpc,
    reflection_v1alpha_pb2,
    reflection_v1alpha_pb2_grpc,
)
from forebay.wire import reflection_pb2 as pb
from forebay_server.service.frontend.control import reflection
from forebay_server.service.frontend.restrictions import CATEGORIES
from tests.rpc.test_slow_readers import CUT, NARROW
from tests.support.guard import HANG_GUARD_S
from tests.support.loops import on_loop
from tests.support.real_server import eventually, real_server, simulated

VERSIONS = {
    "v1": (reflection_pb2, reflection_pb2_grpc),
    "v1alpha": (reflection_v1alpha_pb2, reflection_v1alpha_pb2_grpc),
}
both_versions = pytest.mark.parametrize("version", VERSIONS)
METHOD = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"


def call_of(channel, version="v1", **options):
    _, stubs = VERSIONS[version]
    return stubs.ServerReflectionStub(channel).ServerReflectionInfo(**options)


async def ask(call, version="v1", **question):
    messages, _ = VERSIONS[version]
    await call.write(messages.ServerReflectionRequest(**question))
    return await call.read()


async def end(call):
    """The status of a call after the client's half-close."""
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    return await call.code()


async def status(call):
    """Read to the end, and return the code and the details."""
    try:
        while await call.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError:
        pass
    return await call.code(), await call.details()


def server_of(running):
    """The part of a running server that is tested here."""
    return running.server.front_end._reflection


@both_versions
@on_loop
async def test_without_the_setting_there_is_no_such_service(tmp_path, version):
    async with real_server(simulated(tmp_path)) as running:
        code, details = await status(call_of(running.channel, version))
        assert (code, details) == (grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


@both_versions
@on_loop
async def test_a_client_gets_every_answer_in_one_call(tmp_path, version):
    async with real_server(simulated(tmp_path), reflection=True) as running:
        call = call_of(running.channel, version)
        listed = await ask(call, version, host="here", list_services="")
        assert (listed.valid_host, listed.original_request.host) == ("here", "here")
        names = [each.name for each in listed.list_services_response.service]
        for name in names:
            found = await ask(call, version, file_containing_symbol=name)
            assert found.file_descriptor_response.file_descriptor_proto
        found = await ask(call, version, file_by_filename="grpc/health/v1/health.proto")
        assert len(found.file_descriptor_response.file_descriptor_proto) == 1
        extension = VERSIONS[version][0].ExtensionRequest(containing_type="forebay.v1.Frame", extension_number=7)
        found = await ask(call, version, file_containing_extension=extension)
        assert found.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
        found = await ask(call, version, all_extension_numbers_of_type="forebay.v1.Frame")
        assert found.all_extension_numbers_response.base_type_name == "forebay.v1.Frame"
        assert await end(call) is grpc.StatusCode.OK


@on_loop
async def test_the_services_that_are_listed_are_those_on_the_port(tmp_path):
    async with real_server(simulated(tmp_path), reflection=True) as running:
        call = call_of(running.channel)
        listed = {each.name for each in (await ask(call, list_services="")).list_services_response.service}
        await end(call)
        restricted = {path.split("/")[1] for paths in CATEGORIES.values() for path in paths}
        assert listed == restricted | {"xds.service.orca.v3.OpenRcaService"}


@on_loop
async def test_questions_may_be_asked_ahead(tmp_path):
    async with real_server(simulated(tmp_path), reflection=True) as running:
        names = [f"a.B{number}" for number in range(200)]
        questions = iter([pb.ServerReflectionRequest(file_containing_symbol=name) for name in names])
        call = reflection_pb2_grpc.ServerReflectionStub(running.channel).ServerReflectionInfo(questions)
        assert [found.original_request.file_containing_symbol async for found in call] == names
        assert await call.code() is grpc.StatusCode.OK


@on_loop
async def test_bytes_that_are_no_question_end_the_call(tmp_path):
    async with real_server(simulated(tmp_path), reflection=True) as running:
        call = running.channel.stream_stream(METHOD)()
        await call.write(b"\xff")
        code, details = await status(call)
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "the message is no ServerReflectionRequest" in details
        await eventually(lambda: not server_of(running).streams)


@on_loop
async def test_an_open_call_does_not_delay_a_drain(tmp_path):
    async with real_server(simulated(tmp_path), reflection=True, drain_grace_s=3600) as running:
        call = call_of(running.channel)
        await ask(call, list_services="")
        await running.server.front_end.drain()
        assert (await status(call))[0] is grpc.StatusCode.OK


@on_loop
async def test_a_client_that_reads_nothing_is_cut(tmp_path):
    async with (
        real_server(simulated(tmp_path), reflection=True, write_deadline_s=0.3) as running,
        grpc.aio.insecure_channel(running.address, options=NARROW) as channel,
    ):
        server_of(running)._calls.delivery_timeout_s = HANG_GUARD_S  # this client does read, however busy the machine
        call = call_of(channel)

        async def ask_on():
            while True:
                await call.write(pb.ServerReflectionRequest(file_containing_symbol="inference.GRPCInferenceService"))

        asking = asyncio.create_task(ask_on())
        await eventually(lambda: server_of(running).streams)
        await eventually(lambda: not server_of(running).streams)
        assert (await status(call))[0] in CUT
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


@on_loop
async def test_calls_are_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(reflection, "MOST_STREAMS", 2)
    async with real_server(simulated(tmp_path), reflection=True) as running:
        calls = [call_of(running.channel) for _ in range(2)]
        for call in calls:
            await ask(call, list_services="")
        code, details = await status(call_of(running.channel))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "2 calls of reflection open" in details
        for call in calls:
            assert await end(call) is grpc.StatusCode.OK
        await eventually(lambda: not server_of(running).streams)
        again = call_of(running.channel)
        await ask(again, list_services="")
        assert await end(again) is grpc.StatusCode.OK


@both_versions
@on_loop
async def test_it_may_be_restricted(tmp_path, version):
    restricted = ("reflection:admin=s3cret",)
    async with real_server(simulated(tmp_path), reflection=True, restricted_protocol=restricted) as running:
        code, details = await status(call_of(running.channel, version))
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "expecting header 'triton-grpc-protocol-admin'" in details
        call = call_of(running.channel, version, metadata=(("triton-grpc-protocol-admin", "s3cret"),))
        assert (await ask(call, version, list_services="")).list_services_response.service
        assert await end(call) is grpc.StatusCode.OK


@on_loop
async def test_frames_flow_beside_a_client_that_asks_without_end(tmp_path):
    async with real_server(simulated(tmp_path), reflection=True) as running:
        call, answers = call_of(running.channel), 0

        async def ask_on():
            nonlocal answers
            while True:
                await ask(call, file_containing_symbol="inference.GRPCInferenceService")
                answers += 1

        asking = asyncio.create_task(ask_on())
        stream = await running.open()
        for seq in range(1, 51):
            await stream.send(seq)
            assert (await stream.result()).seq == seq
        await eventually(lambda: answers > 10)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        call.cancel()
        await stream.half_close()
        assert await stream.results() == []

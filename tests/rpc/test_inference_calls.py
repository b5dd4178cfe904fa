"""Every call of inference.GRPCInferenceService is there, and none falls over a message that says nothing."""

import gc

import grpc
import numpy as np

import forebay
from forebay.wire import inference_pb2 as pb
from forebay_server.service.request import Completion
from tests.support.inference import request_of, stub_of
from tests.support.loops import on_loop
from tests.support.real_server import LEAK, ROW_BYTES, eventually, real_server, simulated
from tests.support.repository import ROOT

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
ANSWERS = {  # to a message without a single field
    "ServerLive": grpc.StatusCode.OK,
    "ServerReady": grpc.StatusCode.OK,
    "ModelReady": grpc.StatusCode.OK,
    "ServerMetadata": grpc.StatusCode.OK,
    "ModelMetadata": grpc.StatusCode.NOT_FOUND,
    "ModelConfig": grpc.StatusCode.NOT_FOUND,
    "ModelInfer": grpc.StatusCode.NOT_FOUND,
    "ModelStreamInfer": grpc.StatusCode.OK,
    "ModelStatistics": grpc.StatusCode.OK,
    "RepositoryIndex": grpc.StatusCode.OK,
    "RepositoryModelLoad": grpc.StatusCode.INTERNAL,
    "RepositoryModelUnload": grpc.StatusCode.INVALID_ARGUMENT,
    "SystemSharedMemoryStatus": grpc.StatusCode.OK,
    "SystemSharedMemoryRegister": grpc.StatusCode.INVALID_ARGUMENT,
    "SystemSharedMemoryUnregister": grpc.StatusCode.OK,
    "CudaSharedMemoryStatus": grpc.StatusCode.OK,
    "CudaSharedMemoryRegister": grpc.StatusCode.INVALID_ARGUMENT,
    "CudaSharedMemoryUnregister": grpc.StatusCode.OK,
    "TraceSetting": grpc.StatusCode.OK,
    "LogSettings": grpc.StatusCode.OK,
}


@on_loop
async def test_the_server_says_who_it_is_and_what_it_offers_as_the_docs_promise(tmp_path):
    page = (ROOT / "docs" / "triton.md").read_text()
    table = page.partition("| extension | here |\n| --- | --- |\n")[2].partition("\n\n")[0]
    async with real_server(simulated(tmp_path)) as running:
        told = await stub_of(running).ServerMetadata(pb.ServerMetadataRequest())
    assert told.name == "forebay"
    assert told.version == forebay.__version__
    assert list(told.extensions) == [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines()]


def test_the_table_has_every_call():
    assert set(ANSWERS) == {method.name for method in SERVICE.methods}


@on_loop
async def test_every_call_answers_a_message_that_says_nothing(tmp_path):
    simulated(tmp_path)
    settings = {"model_control_mode": "explicit", "load_model": ("sim",), "allow_client_shm": True}
    async with real_server(tmp_path, **settings) as running:
        for method in SERVICE.methods:
            path = f"/{SERVICE.full_name}/{method.name}"
            if method.client_streaming:
                call = running.channel.stream_stream(path)()
                await call.done_writing()
            else:
                call = running.channel.unary_unary(path)(b"")
            code, details = await call.code(), await call.details()
            assert (method.name, code) == (method.name, ANSWERS[method.name]), details
            assert not LEAK.search(details), details


@on_loop
async def test_every_call_refuses_bytes_that_are_no_message(tmp_path):
    simulated(tmp_path)
    async with real_server(tmp_path) as running:
        for method in SERVICE.methods:
            path = f"/{SERVICE.full_name}/{method.name}"
            if not method.client_streaming:
                call = running.channel.unary_unary(path)(b"\xff\xff\xff")
                assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT, method.name
                assert not LEAK.search(await call.details())


@on_loop
async def test_a_server_that_drains_is_live_and_not_ready(tmp_path):
    simulated(tmp_path)
    async with real_server(tmp_path) as running:
        stub = stub_of(running)
        assert (await stub.ServerReady(pb.ServerReadyRequest())).ready
        running.server.stop()
        await eventually(lambda: not running.server.is_ready)
        assert not (await stub.ServerReady(pb.ServerReadyRequest())).ready
        assert (await stub.ServerLive(pb.ServerLiveRequest())).live


def completions():
    return [each for each in gc.get_objects() if isinstance(each, Completion)]


@on_loop
async def test_an_answered_request_is_gone_without_the_garbage_collector(tmp_path):
    """A cycle would keep the outputs of every request, and a version that is unloaded, until it comes by."""
    async with real_server(simulated(tmp_path)) as running:
        infer = stub_of(running).ModelInfer
        request = request_of("sim", input=np.zeros((1, ROW_BYTES), np.uint8))
        await infer(request)
        gc.collect()
        gc.disable()
        try:
            before = completions()  # of earlier tests
            for _ in range(5):
                await infer(request)
            await eventually(lambda: all(any(each is old for old in before) for each in completions()))
        finally:
            gc.enable()

"""Bare model files, served by a real process."""

import os

import grpc

from forebay.wire.inference_pb2_grpc import GRPCInferenceServiceStub
from tests.rpc.test_inference_lifecycle import load
from tests.rpc.test_rehearsals import explicit_server
from tests.support import models
from tests.support.inference import add_sub_request, array_of
from tests.support.loops import on_loop
from tests.support.serve_process import serve


async def answers(stub, name):
    response = await stub.ModelInfer(add_sub_request(model=name))
    return array_of(response, "OUTPUT0")[0, 3] == 4


@on_loop
async def test_files_on_the_command_line_are_served_under_their_names(tmp_path):
    files = [models.save(models.add_sub(), tmp_path / name) for name in ("best.onnx", "other.onnx")]
    async with (
        serve(*files, environment=dict(os.environ)) as server,
        grpc.aio.insecure_channel(await server.wait_ready()) as channel,
    ):
        stub = GRPCInferenceServiceStub(channel)
        assert await answers(stub, "best")
        assert await answers(stub, "other")


@on_loop
async def test_a_file_of_a_repository_is_rehearsed_and_loaded_on_request(tmp_path):
    models.save(models.add_sub(), tmp_path / "best.onnx")
    async with explicit_server(tmp_path) as (_, stub):
        await load(stub, "best")
        assert await answers(stub, "best")

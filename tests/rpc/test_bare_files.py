"""Bare model files, served by a real process."""

import json
import os

import grpc
import numpy as np
from onnx import TensorProto, helper, numpy_helper

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


def larger_than_its_example(path):
    """A model of open sizes whose kernel is larger than the example that the server makes up for it."""
    kernel = numpy_helper.from_array(np.ones((4, 3, 7, 7), np.float32), "kernel")
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["rows", 3, "height", "width"])
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["rows", 4, "h", "w"])
    node = helper.make_node("Conv", ["image", "kernel"], ["output"], kernel_shape=[7, 7])
    graph = helper.make_graph([node], "large kernel", [image], [output], [kernel])
    return models.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@on_loop
async def test_a_trial_run_of_open_sizes_that_fails_is_no_error_in_the_log(tmp_path):
    async with serve(larger_than_its_example(tmp_path / "net.onnx"), environment=dict(os.environ)) as server:
        await server.wait_ready()
        assert await server.end() == 0
    levels = [json.loads(line).get("level") for line in server.errors.splitlines()]
    assert set(levels) == {"info"}, server.errors

"""Inputs that requests may leave out: the model's own value counts then, alone and beside requests that have them."""

import asyncio

import grpc
import numpy as np
import structlog
from onnx import TensorProto, helper, numpy_helper

from forebay.wire import inference_pb2 as pb
from tests.rpc.test_inference_lifecycle import code_of
from tests.support import models
from tests.support.inference import array_of, request_of, stub_of
from tests.support.loops import on_loop
from tests.support.real_server import eventually, real_server

ROW = np.arange(4, dtype=np.float32)


def weighted(shape, factor_shape, offset_shape):
    """y = x * factor + offset; factor is 2 and offset 10 where a request says nothing."""
    nodes = [
        helper.make_node("Mul", ["x", "factor"], ["product"]),
        helper.make_node("Add", ["product", "offset"], ["y"]),
    ]
    constants = [
        numpy_helper.from_array(np.full([1 if isinstance(dim, str) else dim for dim in dims], value, np.float32), name)
        for name, dims, value in (("factor", factor_shape, 2), ("offset", offset_shape, 10))
    ]
    inputs = [models.tensor("x", shape), models.tensor("factor", factor_shape), models.tensor("offset", offset_shape)]
    return models.build(nodes, inputs, [models.tensor("y", shape)], constants)


def optional(*names, **more):
    lines = [f'input {{ name: "{name}" data_type: TYPE_FP32 dims: {dims} optional: true }}' for name, dims in names]
    lines.append('input { name: "x" data_type: TYPE_FP32 dims: 4 }')
    lines += [f"{key}: {value}" for key, value in more.items()]
    return "\n".join(lines)


def batched(root):
    models.save(weighted(("batch", 4), ("batch", 4), ("batch", 1)), root / "m" / "1" / "model.onnx")
    (root / "m" / "config.pbtxt").write_text(optional(("factor", 4), ("offset", 1), max_batch_size=8))
    return root


def unbatched(root):
    models.save(weighted((4,), (1,), (4,)), root / "m" / "1" / "model.onnx")
    (root / "m" / "config.pbtxt").write_text(optional(("factor", 1), ("offset", 4)))
    return root


async def answer(stub, **inputs):
    return array_of(await stub.ModelInfer(request_of("m", **inputs)), "y")


@on_loop
async def test_every_subset_of_optional_inputs_is_answered(tmp_path):
    async with real_server(batched(tmp_path)) as running:
        stub = stub_of(running)
        x, factor, offset = np.tile(ROW, (3, 1)), np.full((3, 4), 5, np.float32), np.full((3, 1), 7, np.float32)
        np.testing.assert_array_equal(await answer(stub, x=x), x * 2 + 10)
        np.testing.assert_array_equal(await answer(stub, x=x, factor=factor), x * 5 + 10)
        np.testing.assert_array_equal(await answer(stub, offset=offset, x=x), x * 2 + 7)
        np.testing.assert_array_equal(await answer(stub, offset=offset, factor=factor, x=x), x * 5 + 7)


@on_loop
async def test_optional_inputs_of_a_model_without_batches(tmp_path):
    async with real_server(unbatched(tmp_path)) as running:
        stub = stub_of(running)
        np.testing.assert_array_equal(await answer(stub, x=ROW), ROW * 2 + 10)
        np.testing.assert_array_equal(await answer(stub, x=ROW, factor=np.float32([3])), ROW * 3 + 10)


@on_loop
async def test_requests_with_and_without_an_optional_input_do_not_share_a_batch(tmp_path):
    async with real_server(batched(tmp_path)) as running:
        stub = stub_of(running)
        factors = [index if index % 3 else None for index in range(24)]
        rows = [ROW[None] + index for index in range(24)]
        calls = [
            answer(stub, x=x) if factor is None else answer(stub, x=x, factor=np.full((1, 4), factor, np.float32))
            for x, factor in zip(rows, factors, strict=True)
        ]
        for x, factor, y in zip(rows, factors, await asyncio.gather(*calls), strict=True):
            np.testing.assert_array_equal(y, x * (2 if factor is None else factor) + 10)
        await eventually(lambda: running.server.permits.taken_count == 0)


@on_loop
async def test_a_required_input_is_missed_in_tritons_words(tmp_path):
    async with real_server(batched(tmp_path)) as running:
        request = request_of("m", offset=np.zeros((1, 1), np.float32))
        code, message = await code_of(stub_of(running).ModelInfer(request))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "expected number of inputs between 1 and 3 but got 1 inputs for model 'm'" in message
        assert "missing required input(s) ['x']" in message


@on_loop
async def test_clients_see_optional_inputs_in_metadata_and_configuration(tmp_path):
    async with real_server(batched(tmp_path)) as running:
        stub = stub_of(running)
        metadata = await stub.ModelMetadata(pb.ModelMetadataRequest(name="m"))
        assert {tensor.name: list(tensor.shape) for tensor in metadata.inputs} == {
            "x": [-1, 4],
            "factor": [-1, 4],
            "offset": [-1, 1],
        }
        config = (await stub.ModelConfig(pb.ModelConfigRequest(name="m"))).config
        assert {tensor.name: tensor.optional for tensor in config.input} == {"x": False, "factor": True, "offset": True}


@on_loop
async def test_an_optional_input_may_be_warmed_up_or_left_out_of_it(tmp_path):
    batched(tmp_path)
    x = 'inputs { key: "x" value { data_type: TYPE_FP32 dims: 4 random_data: true } }'
    factor = 'inputs { key: "factor" value { data_type: TYPE_FP32 dims: 4 zero_data: true } }'
    with (tmp_path / "m" / "config.pbtxt").open("a") as file:
        file.write(f"\nmodel_warmup {{ batch_size: 2 {x} }} model_warmup {{ batch_size: 1 {x} {factor} }}")
    async with real_server(tmp_path) as running:
        np.testing.assert_array_equal(await answer(stub_of(running), x=ROW[None]), ROW[None] * 2 + 10)


@on_loop
async def test_an_input_that_the_model_needs_stays_required(tmp_path):
    models.save(models.identity(("batch", 4), TensorProto.FLOAT), tmp_path / "m" / "1" / "model.onnx")
    config = tmp_path / "m" / "config.pbtxt"
    config.write_text('input { name: "x" data_type: TYPE_FP32 dims: 4 optional: true } max_batch_size: 4')
    with structlog.testing.capture_logs() as logs:
        async with real_server(tmp_path) as running:
            assert running.version("m").specs.is_fixed, "it is served as before"
            assert (await code_of(answer(stub_of(running))))[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert any("input 'x' is not optional" in line.get("detail", "") for line in logs)


@on_loop
async def test_an_initializer_that_nobody_calls_optional_is_no_input(tmp_path):
    """Older exporters list every weight among the inputs."""
    batched(tmp_path)
    (tmp_path / "m" / "config.pbtxt").write_text("max_batch_size: 8")
    async with real_server(tmp_path) as running:
        stub = stub_of(running)
        np.testing.assert_array_equal(await answer(stub, x=ROW[None]), ROW[None] * 2 + 10)
        assert running.version("m").specs.is_fixed
        code, message = await code_of(answer(stub, x=ROW[None], factor=ROW[None]))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "unexpected inference input 'factor'" in message

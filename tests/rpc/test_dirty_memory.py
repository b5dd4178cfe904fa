"""A whole server that dirties its memory before every execution: no answer shows its old contents.

Every output kind, batches that are joined and not full, rows that a model fixes, models that run unbound, shared
memory, and both protocols. tests/contract/test_engine.py tests engines on dirty memory, size by size.
"""

import asyncio
import contextlib
import uuid
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from forebay.wire import inference_pb2 as pb
from tests.rpc.test_inference_memory import SHM, place, register
from tests.support import models, passing_models
from tests.support.dirt import PATTERNS, Dirt
from tests.support.inference import stub_of
from tests.support.loops import on_loop
from tests.support.real_server import ROW_BYTES, SimulatedDevices, real_server, simulated

TYPES = {
    "FP32": (TensorProto.FLOAT, np.float32),
    "FP16": (TensorProto.FLOAT16, np.float16),
    "FP64": (TensorProto.DOUBLE, np.float64),
    "BF16": (TensorProto.BFLOAT16, np.uint16),
    "BOOL": (TensorProto.BOOL, np.bool_),
    "UINT8": (TensorProto.UINT8, np.uint8),
    "INT16": (TensorProto.INT16, np.int16),
    "INT32": (TensorProto.INT32, np.int32),
    "INT64": (TensorProto.INT64, np.int64),
}
ROWS = (1, 3, 2, 1, 1, 2)
"""Of the requests that are sent at once: some batches are joined, none is sure to be full."""


@pytest.fixture(params=PATTERNS)
def dirt(request):
    return Dirt(request.param)


def request_of(model, rows, datatype, dtype, *names, seed=0):
    """A request of small numbers, and its inputs by name."""
    random = np.random.default_rng([seed, rows])
    request, arrays = pb.ModelInferRequest(model_name=model), {}
    for name in names:
        arrays[name] = random.integers(0, 2, (rows, 4)).astype(dtype)
        request.inputs.add(name=name, datatype=datatype, shape=arrays[name].shape)
        request.raw_input_contents.append(arrays[name].tobytes())
    return request, arrays


async def ask(stub, request, expected):
    """Compare all outputs, in their order, byte by byte."""
    response = await stub.ModelInfer(request)
    assert len(response.raw_output_contents) == len(expected)
    for contents, values in zip(response.raw_output_contents, expected, strict=True):
        assert contents == values.tobytes()


@pytest.mark.parametrize("datatype", TYPES)
@on_loop
async def test_every_datatype(tmp_path, dirt, datatype):
    onnx_type, dtype = TYPES[datatype]
    models.save(models.identity(("batch", 4), onnx_type), tmp_path / "passed" / "1" / "model.onnx")
    models.save(passing_models.echo(("batch", 4), onnx_type), tmp_path / "echo" / "1" / "model.onnx")
    async with real_server(tmp_path, before_execution=dirt) as running:
        stub, asked = stub_of(running), []
        for seed, (model, rows) in enumerate((model, rows) for model in ("passed", "echo") for rows in ROWS):
            request, arrays = request_of(model, rows, datatype, dtype, "x", seed=seed)
            asked.append(ask(stub, request, [arrays["x"]]))
        await asyncio.gather(*asked)
    assert dirt.executions > 0


@on_loop
async def test_outputs_that_are_inputs_beside_computed_ones(tmp_path, dirt):
    models.save(passing_models.echo_beside(("batch", 4)), tmp_path / "beside" / "1" / "model.onnx")
    async with real_server(tmp_path, before_execution=dirt) as running:
        stub, asked = stub_of(running), []
        for seed, rows in enumerate(ROWS):
            request, given = request_of("beside", rows, "FP32", np.float32, "x", "z", seed=seed)
            asked.append(ask(stub, request, [given["x"] + given["z"], given["x"], given["z"]]))
        await asyncio.gather(*asked)


@pytest.mark.parametrize("build", [models.identity, passing_models.echo])
@on_loop
async def test_rows_that_the_model_fixes_are_padded(tmp_path, dirt, build):
    models.save(build((4, 4)), tmp_path / "fixed" / "1" / "model.onnx")
    (tmp_path / "fixed" / "config.pbtxt").write_text("max_batch_size: 4")
    async with real_server(tmp_path, before_execution=dirt) as running:
        for seed, rows in enumerate(ROWS):
            request, given = request_of("fixed", rows, "FP32", np.float32, "x", seed=seed)
            await ask(stub_of(running), request, [given["x"]])


@pytest.mark.parametrize("shape", [(4, 4), (4, "n")])
@on_loop
async def test_a_model_without_a_batch_bound_and_unbound(tmp_path, dirt, shape):
    models.save(passing_models.echo_beside(shape), tmp_path / "whole" / "1" / "model.onnx")
    async with real_server(tmp_path, before_execution=dirt) as running:
        request, given = request_of("whole", 4, "FP32", np.float32, "x", "z")
        for _ in range(6):
            await ask(stub_of(running), request, [given["x"] + given["z"], given["x"], given["z"]])


@pytest.mark.parametrize("build", [models.identity, passing_models.echo, passing_models.echo_beside])
@on_loop
async def test_shapes_that_vary(tmp_path, dirt, build):
    models.save(build(("batch", "n")), tmp_path / "varying" / "1" / "model.onnx")
    async with real_server(tmp_path, before_execution=dirt) as running:
        stub, asked = stub_of(running), []
        names = ("x", "z") if build is passing_models.echo_beside else ("x",)
        for seed, rows in enumerate(ROWS):
            request, given = request_of("varying", rows, "FP32", np.float32, *names, seed=seed)
            computed = [given["x"] + given["z"]] if "z" in given else []
            asked.append(ask(stub, request, [*computed, *given.values()]))
        await asyncio.gather(*asked)


@pytest.mark.parametrize("output", ["copy", "checksum"])
@pytest.mark.parametrize("is_synchronous", [True, False])
@on_loop
async def test_the_simulated_engine_on_both_kinds_of_device(tmp_path, dirt, output, is_synchronous):
    devices = None if is_synchronous else SimulatedDevices()
    root = simulated(tmp_path, output=output, max_batch_size=8)
    async with real_server(root, devices=devices, before_execution=dirt) as running:
        stream, random = await running.open(), np.random.default_rng(0)
        payloads = [random.bytes(ROW_BYTES) for _ in range(24)]
        for seq, payload in enumerate(payloads, start=1):
            await stream.send(seq, payload)
        await stream.half_close()
        results = await stream.results()
        for payload, result in zip(payloads, results, strict=True):
            word = np.bitwise_xor.reduce(np.frombuffer(payload, np.uint64)).tobytes()
            assert result.tensors[0].data == (payload if output == "copy" else word)
    assert dirt.executions > 0
    if devices is not None:
        assert [device.races for device in devices.devices] == [()]


@contextlib.contextmanager
def region(nbytes, pattern):
    """A shared memory object full of `pattern`; yields its path."""
    path = Path(SHM / f"forebay-test-{uuid.uuid4().hex}")
    path.write_bytes(bytes([pattern]) * nbytes)
    try:
        yield path
    finally:
        path.unlink()


@pytest.mark.parametrize("inner", [4, "n"])
@on_loop
async def test_a_region_of_shared_memory_gets_the_output_and_nothing_else(tmp_path, dirt, inner):
    models.save(passing_models.echo_beside(("batch", inner)), tmp_path / "beside" / "1" / "model.onnx")
    async with real_server(tmp_path, before_execution=dirt, allow_client_shm=True) as running:
        with region(4096, dirt.pattern) as path:
            stub = stub_of(running)
            await register(stub, path.name)
            for rows in ROWS:
                request, given = request_of("beside", rows, "FP32", np.float32, "x", "z")
                for index, name in enumerate("yxz"):  # each has room for eight rows
                    place(request.outputs.add(name=name).parameters, 1024 * index, 128)
                await stub.ModelInfer(request)
                found = path.read_bytes()
                outputs = (given["x"] + given["z"], given["x"], given["z"])
                for index, values in enumerate(outputs):
                    start = 1024 * index
                    assert found[start : start + values.nbytes] == values.tobytes()
                    rest = found[start + 128 : start + 1024]
                    assert rest == bytes([dirt.pattern]) * len(rest)

"""No answer holds bytes of another client, for any earlier user of the memory and any bytes that the model leaves."""

import asyncio

import numpy as np
import pytest

from tests.rpc.test_inference_lifecycle import load, unload
from tests.support import models, passing_models
from tests.support.inference import array_of, request_of, stub_of
from tests.support.loops import on_loop
from tests.support.real_server import eventually, real_server

SECRET = 0xA7
ROWS = 2


def words_of(row_bytes):
    """The inner shape of rows of so many bytes."""
    return (row_bytes // 4,)


def secret_request(row_bytes):
    return request_of("first", x=np.full((ROWS, *words_of(row_bytes)), SECRET * 0x01010101, np.uint32).view(np.float32))


async def use_and_unload(running, row_bytes):
    """One client's part: fill every slot of its model with its bytes, and go."""
    stub = stub_of(running)
    await load(stub, "first")
    answers = await asyncio.gather(*(stub.ModelInfer(secret_request(row_bytes)) for _ in range(16)))
    assert all(set(answer.raw_output_contents[0]) == {SECRET} for answer in answers)
    await unload(stub, "first")
    await eventually(lambda: not running.server.registry.unloading())


@pytest.mark.parametrize("row_bytes", [16, 64, 256])
@pytest.mark.parametrize("second", ["echo", "echo-beside", "echo-varying"])
@on_loop
async def test_a_model_whose_output_is_its_input_gives_nothing_of_the_model_before(tmp_path, row_bytes, second):
    rows = ("batch", *words_of(row_bytes))
    made = {
        "echo": passing_models.echo(rows),
        "echo-beside": passing_models.echo_beside(rows),
        "echo-varying": passing_models.echo(("batch", "n")),
    }
    models.save(models.identity(rows), tmp_path / "first" / "1" / "model.onnx")
    models.save(made[second], tmp_path / "second" / "1" / "model.onnx")
    async with real_server(tmp_path, model_control_mode="explicit") as running:
        await use_and_unload(running, row_bytes)
        stub = stub_of(running)
        await load(stub, "second")
        given = np.arange(ROWS * row_bytes // 4, dtype=np.float32).reshape(ROWS, -1)
        inputs = {"x": given, "z": -given} if second == "echo-beside" else {"x": given}
        for _ in range(8):  # every slot
            answer = await stub.ModelInfer(request_of("second", **inputs))
            for contents in answer.raw_output_contents:
                assert SECRET not in contents
            for name, values in inputs.items():
                np.testing.assert_array_equal(array_of(answer, name), values)


@on_loop
async def test_an_output_that_is_listed_twice_has_its_values(tmp_path):
    models.save(passing_models.echo_beside(("batch", 4)), tmp_path / "twice" / "1" / "model.onnx")
    async with real_server(tmp_path) as running:
        x = np.arange(8, dtype=np.float32).reshape(2, 4)
        answer = await stub_of(running).ModelInfer(request_of("twice", x=x, z=-2 * x))
        for name, expected in (("y", -x), ("x", x), ("z", -2 * x)):
            np.testing.assert_array_equal(array_of(answer, name), expected)

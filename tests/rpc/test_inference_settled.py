"""Models whose files do not say how they are served: a trial run does, and corrects a configuration that differs."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from forebay.wire import inference_pb2 as pb
from forebay_server.engines.datatypes import BF16
from forebay_server.service.models.config_text import ConfigError
from tests.support import models, onnx_cases
from tests.support.inference import array_of, request_of, stub_of
from tests.support.loops import on_loop
from tests.support.real_server import real_server

INT32, INT64 = TensorProto.INT32, TensorProto.INT64
ONES = np.ones((2, 4), np.int32)


def save(root, model, config=""):
    models.save(model, root / "m" / "1" / "model.onnx")
    (root / "m" / "config.pbtxt").write_text(config)
    return root


def ratio():
    """a, b -> a / b in whole numbers: it fails on zeros."""
    shapes = [models.tensor(name, ("batch", 4), INT32) for name in "aby"]
    return models.build([helper.make_node("Div", ["a", "b"], ["y"])], shapes[:2], shapes[2:])


def found():
    """x (batch, 4) -> y (found, 2): the places of other elements than zero. The first dimension is not the rows."""
    nodes = [helper.make_node("NonZero", ["x"], ["t"]), helper.make_node("Transpose", ["t"], ["y"])]
    return models.build(nodes, [models.tensor("x", ("batch", 4), INT32)], [models.tensor("y", ("found", 2), INT64)])


def one_row():
    """x (batch, 4) -> y (batch, 4) by way of a shape (1, 4) that ONNX Runtime cannot infer: it fails on two rows."""
    weights = [
        numpy_helper.from_array(np.array([1, 4], np.int64), "shape"),
        numpy_helper.from_array(np.array(0, np.int32), "zero"),
    ]
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "zero"], ["nothing"]),
        helper.make_node("Cast", ["nothing"], ["whole"], to=INT64),
        helper.make_node("Add", ["shape", "whole"], ["one"]),
        helper.make_node("Reshape", ["x", "one"], ["y"]),
    ]
    ends = [models.tensor(name, ("batch", 4), INT32) for name in "xy"]
    return models.build(nodes, ends[:1], ends[1:], weights)


def ratio_sample(rows=1):
    inputs = "".join(
        f'inputs {{ key: "{name}" value {{ data_type: TYPE_INT32 dims: 4 {source}: {value} }} }} '
        for name, source, value in (("a", "zero_data", "true"), ("b", "input_data_file", '"ones"'))
    )
    return f'model_warmup {{ name: "w" batch_size: {rows} {inputs} }}'


async def config_of(running):
    return (await stub_of(running).ModelConfig(pb.ModelConfigRequest(name="m"))).config


@on_loop
async def test_a_model_that_fails_on_zeros_is_served_and_is_no_error_in_the_log(tmp_path, capsys):
    async with real_server(save(tmp_path, ratio())) as running:
        response = await stub_of(running).ModelInfer(request_of("m", a=6 * ONES, b=3 * ONES))
        assert array_of(response, "y").tolist() == [[2] * 4] * 2
        assert (await config_of(running)).max_batch_size == 8
        assert not running.version("m").specs.is_fixed
    assert "error " not in capsys.readouterr().out


@on_loop
async def test_nothing_runs_on_zeros_where_the_configuration_has_a_sample(tmp_path):
    save(tmp_path, ratio(), ratio_sample())
    (tmp_path / "m" / "warmup").mkdir()
    (tmp_path / "m" / "warmup" / "ones").write_bytes(ONES[:1].tobytes())
    async with real_server(tmp_path) as running:
        assert running.version("m").specs.is_fixed, "the sample has shown that its outputs are as declared"
        response = await stub_of(running).ModelInfer(request_of("m", a=6 * ONES, b=3 * ONES))
        assert array_of(response, "y").tolist() == [[2] * 4] * 2


@on_loop
async def test_a_first_dimension_that_is_not_the_rows_is_no_batch(tmp_path):
    async with real_server(save(tmp_path, found())) as running:
        assert (await config_of(running)).max_batch_size == 0
        metadata = await stub_of(running).ModelMetadata(pb.ModelMetadataRequest(name="m"))
        assert [list(tensor.shape) for tensor in (*metadata.inputs, *metadata.outputs)] == [[-1, 4], [-1, 2]]
        response = await stub_of(running).ModelInfer(request_of("m", x=ONES))
        assert list(response.outputs[0].shape) == [8, 2]


@on_loop
async def test_a_model_that_takes_one_row_gets_one(tmp_path):
    async with real_server(save(tmp_path, one_row())) as running:
        assert (await config_of(running)).max_batch_size == 1
        response = await stub_of(running).ModelInfer(request_of("m", x=ONES[:1]))
        np.testing.assert_array_equal(array_of(response, "y"), ONES[:1])


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            found(),
            "the first dimension of output 'y' is not the number of rows: write max_batch_size: 0",
        ),
        (one_row(), "max_batch_size is 4, but the model takes one row: write max_batch_size: 1"),
    ],
    ids=["found", "one row"],
)
def test_a_configuration_that_the_model_contradicts_is_told_what_to_write(tmp_path, model, words):
    @on_loop
    async def start():
        async with real_server(save(tmp_path, model, "max_batch_size: 4")):
            pass

    with pytest.raises(ConfigError, match=words):
        start()


@on_loop
async def test_bfloat16_of_varying_shapes_comes_back(tmp_path):
    async with real_server(save(tmp_path, models.identity(("batch", "n"), TensorProto.BFLOAT16))) as running:
        for shape in ((2, 3), (1, 1), (3, 0)):
            array = np.arange(np.prod(shape), dtype=np.uint16).view(BF16).reshape(shape)
            response = await stub_of(running).ModelInfer(onnx_cases.request("m", {"x": array}))
            answer = onnx_cases.arrays(response)["y"]
            assert (answer.dtype, answer.shape, answer.tobytes()) == (BF16, shape, array.tobytes())


@on_loop
async def test_an_output_without_a_declared_rank_has_that_of_its_answer(tmp_path):
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    inputs = [models.tensor("x", (6,), INT32), models.tensor("shape", ("rank",), INT64)]
    model = models.build(nodes, inputs, [models.tensor("y", (), INT32)])
    model.graph.output[0].type.tensor_type.ClearField("shape")  # exporters write this, although ONNX wants a shape
    async with real_server(save(tmp_path, model)) as running:
        values = np.arange(6, dtype=np.int32)
        for shape in ((2, 3), (1, 2, 3), (6,)):
            inputs = {"x": values, "shape": np.array(shape, np.int64)}
            response = await stub_of(running).ModelInfer(onnx_cases.request("m", inputs))
            np.testing.assert_array_equal(onnx_cases.arrays(response)["y"], values.reshape(shape))

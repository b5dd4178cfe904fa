"""Which models are folded, and with which dimensions they are opened."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from forebay_server.engines.engine import EngineSpecs, TensorSpec
from forebay_server.engines.onnx_wire import onnx_model_pb2 as wire
from forebay_server.service.models.completion import complete
from forebay_server.service.models.config_text import ConfigError, parse_config
from forebay_server.service.models.description import ModelDescription
from forebay_server.service.models.folding import settle_changes, write_folded
from forebay_server.service.pictures.picture_input import PictureInput, Values
from tests.support import exported, models

SCALE = 'parameters { key: "scale" value { string_value: "1/255" } }'
INPUT = 'input { name: "images" data_type: TYPE_FP32 dims: [ 3, 48, 64 ] }'


def parameter(key, value):
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'


def settled(tmp_path, text, shape=("N", 3, 48, 64), datatype=TensorProto.FLOAT, backend="onnxruntime", opset=17):
    node = helper.make_node("Identity", ["images"], ["y"])
    graph = helper.make_graph(
        [node], "test", [models.tensor("images", shape, datatype)], [models.tensor("y", shape, datatype)]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    path = models.save(model, tmp_path / "model.onnx")
    description = ModelDescription("m", backend, None, config=parse_config(text, "m/config.pbtxt"))
    return settle_changes(description, path, None)


@pytest.mark.parametrize(
    ("text", "is_folded"),
    [
        (SCALE, True),
        (SCALE + parameter("fold", "auto"), True),
        (SCALE + INPUT, False),
        (SCALE + INPUT + parameter("fold", "on"), True),
        (SCALE + parameter("fold", "off"), False),
        ("", False),
        (INPUT, False),
    ],
)
def test_a_model_is_folded_unless_its_input_is_described(tmp_path, text, is_folded):
    description, changes = settled(tmp_path, text)
    assert description.is_folded == is_folded
    assert (changes.content is not None) == is_folded


def test_a_folded_model_takes_bytes_and_keeps_everything_else(tmp_path):
    text = SCALE + parameter("resize", "letterbox") + parameter("mean", "0.5") + parameter("color_order", "BGR")
    description, changes = settled(tmp_path, text)
    declared = wire.ModelProto.FromString(changes.content).graph.input[0].type.tensor_type
    assert declared.elem_type == TensorProto.UINT8
    specs = EngineSpecs((TensorSpec("images", np.dtype(np.uint8), (48, 64, 3)),), (), 8)
    assert complete(description, specs).image == PictureInput(64, 48, "BGR", "letterbox", values=Values("NHWC"))


def test_a_folded_grey_model_takes_bytes(tmp_path):
    description, _ = settled(tmp_path, SCALE, shape=("N", 1, 48, 64))
    specs = EngineSpecs((TensorSpec("images", np.dtype(np.uint8), (48, 64, 1)),), (), 8)
    assert complete(description, specs).image == PictureInput(64, 48, "GRAY")


@pytest.mark.parametrize("shape", [("N", 3, "height", "width"), ("N", "height", "width", 3)])
def test_the_size_of_a_picture_is_fixed(tmp_path, shape):
    _, changes = settled(tmp_path, SCALE + parameter("image_size", "64x48"), shape=shape)
    assert changes.dimensions == {"height": 48, "width": 64}


def test_one_name_for_both_sides_needs_a_square(tmp_path):
    _, changes = settled(tmp_path, SCALE + parameter("image_size", "64"), shape=("N", 3, "side", "side"))
    assert changes.dimensions == {"side": 64}


@pytest.mark.parametrize("shape", [("N", 3, "side", "side"), ("N", 3, None, None), ("N", 3, "N", "width")])
def test_sides_without_names_of_their_own_cannot_be_fixed(tmp_path, shape):
    with pytest.raises(ConfigError, match=r"m/config\.pbtxt: image_size cannot fix input 'images'"):
        settled(tmp_path, SCALE + parameter("image_size", "64x48"), shape=shape)


def test_a_model_that_cannot_be_folded_is_served_without(tmp_path):
    description, changes = settled(tmp_path, SCALE, opset=6)
    assert not description.is_folded
    assert not changes
    with pytest.raises(ConfigError, match="fold is on, but the model has opset 6, before 7"):
        settled(tmp_path, SCALE + parameter("fold", "on"), opset=6)


def test_bytes_need_no_fold(tmp_path):
    shape = ("N", 48, 64, 3)
    description, changes = settled(tmp_path, parameter("image_size", "64x48"), shape, TensorProto.UINT8)
    assert not description.is_folded
    assert not changes


def test_other_backends_take_numbers_from_the_worker(tmp_path):
    assert not settled(tmp_path, SCALE, backend="torch")[0].is_folded
    assert settled(tmp_path, SCALE + parameter("fold", "on"), backend="tensorrt")[0].is_folded
    with pytest.raises(ConfigError, match="fold is on, but backend 'torch' runs models as they are"):
        settled(tmp_path, SCALE + parameter("fold", "on"), backend="torch")


def test_rows_of_outputs_are_fixed_by_onnx_runtime_alone(tmp_path):
    rows = parameter("output_rows", "5")
    with pytest.raises(ConfigError, match=r"m/config\.pbtxt: output_rows is written, but the model's batch is open"):
        settled(tmp_path, rows)
    with pytest.raises(ConfigError, match="output_rows is written, but every output of the model has a fixed size"):
        settled(tmp_path, SCALE + rows, shape=(1, 3, 48, 64))
    with pytest.raises(ConfigError, match="output_rows is written, but backend 'tensorrt' runs models as they are"):
        settled(tmp_path, rows, backend="tensorrt")


@pytest.mark.parametrize(("text", "is_folded"), [("", False), (SCALE, True), (SCALE + parameter("fold", "off"), False)])
def test_rows_are_fixed_with_a_fold_and_without(tmp_path, text, is_folded):
    path = exported.objects(tmp_path / "model.onnx", [[0, 0, 8, 8]], side=16, few=1)
    config = parse_config(text + parameter("output_rows", "5"), "m/config.pbtxt")
    description, changes = settle_changes(ModelDescription("m", "onnxruntime", None, config=config), path, None)
    graph = wire.ModelProto.FromString(changes.content).graph
    assert description.is_folded == is_folded
    assert [value.type.tensor_type.shape.dim[0].dim_value for value in graph.output] == [5, 5, 5]


def test_a_plan_is_built_from_a_folded_file_that_casts_first(tmp_path):
    """TensorRT takes bytes only where they are cast at once."""
    path = models.save(models.conv_net(), tmp_path / "model.onnx")
    description = ModelDescription("m", "tensorrt", None, config=parse_config(SCALE, "m/config.pbtxt"))
    assert write_folded(path, description) is None
    config = parse_config(SCALE + parameter("fold", "on"), "m/config.pbtxt")
    written = write_folded(path, ModelDescription("m", "tensorrt", None, config=config))
    assert written == tmp_path / "model.folded.onnx"
    pixels = np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3), np.uint8)
    model = onnx.load(written)
    assert [node.op_type for node in model.graph.node][1:4] == ["Cast", "Transpose", "Div"]
    numbers = (pixels / 255).astype(np.float32).transpose(0, 3, 1, 2)
    (expected,) = models.reference(onnx.load(path), [numbers])
    (found,) = models.reference(model, [pixels])
    assert np.allclose(found, expected, atol=1e-5)


def test_a_folded_plan_takes_bytes(tmp_path):
    config = parse_config(SCALE + parameter("fold", "on"), "m/config.pbtxt")
    description = replace(ModelDescription("m", "tensorrt", None, config=config), is_folded=True)
    folded = EngineSpecs((TensorSpec("images", np.dtype(np.uint8), (48, 64, 3)),), (), 8)
    assert complete(description, folded).image == PictureInput(64, 48, "RGB")
    plain = EngineSpecs((TensorSpec("images", np.dtype(np.float32), (3, 48, 64)),), (), 8)
    assert complete(description, plain).image.values.scale == 1 / 255

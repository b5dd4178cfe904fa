"""FP16 and INT8 of small models: numbers, types and the needs of each target."""

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from forebay_server.engines.build.half import convert_nodes
from forebay_server.engines.build.network import precision_of
from forebay_server.engines.build.normalisation import absorb_normalisation, join_normalisation
from forebay_server.engines.build.onnx_file import find_trunk, load_model, name_nodes
from forebay_server.engines.build.precision import to_fp16, to_int8
from forebay_server.engines.errors import ModelFileError
from tests.support import models

SIZE = 16


def picture_net(seed=5):
    """uint8 pictures -> normalised -> conv, relu, pool, linear -> softmax: cheap ends, weighty middle."""
    random = np.random.default_rng(seed)
    weights = {
        "mean": np.array([120, 110, 100], np.float32).reshape(1, 3, 1, 1),
        "scale": np.array([0.02, 0.018, 0.016], np.float32).reshape(1, 3, 1, 1),
        "kernel": random.normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32),
        "bias": random.normal(0, 0.3, 8).astype(np.float32),
        "weight": random.normal(0, 0.3, (8, 5)).astype(np.float32),
        "offset": random.normal(0, 0.3, 5).astype(np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Sub", ["planes", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "scale"], ["normal"]),
        helper.make_node("Conv", ["normal", "kernel", "bias"], ["features"], pads=[1, 1, 1, 1]),
        helper.make_node("LeakyRelu", ["features"], ["active"], alpha=0.1),
        helper.make_node("GlobalAveragePool", ["active"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight", "offset"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["scores"]),
    ]
    return models.build(
        nodes,
        [models.tensor("image", ("batch", SIZE, SIZE, 3), TensorProto.UINT8)],
        [models.tensor("scores", ("batch", 5))],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )


def pictures(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3)).astype(np.uint8)


def run(model, image, *, is_fused=True):
    """Outputs; not fused, every quantized tensor is computed in FP32, as exactly on one processor as on another."""
    data = model if isinstance(model, bytes) else model.SerializeToString()
    options = onnxruntime.SessionOptions()
    if not is_fused:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: image})[0]


@pytest.fixture
def source(tmp_path):
    return models.save(picture_net(), tmp_path / "model.onnx")


def feeds(count=8):
    return [{"image": picture[None]} for picture in pictures(count)]


def zero_points_of(path):
    model = onnx.load(path)
    values = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    quantizers = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    return [values[node.input[2]] for node in quantizers], model


def test_normalisation_becomes_one_convolution_with_the_same_numbers():
    model, image = picture_net(), pictures(3)
    expected = run(model, image)
    assert join_normalisation(model)
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node].count("Conv") == 2
    assert "Sub" not in [node.op_type for node in model.graph.node]
    np.testing.assert_allclose(run(model, image), expected, atol=1e-6)
    assert not join_normalisation(model)


def test_normalisation_becomes_a_part_of_the_first_convolution():
    model, image = picture_net(), pictures(3)
    expected = run(model, image)
    assert absorb_normalisation(model)
    onnx.checker.check_model(model)
    kinds = [node.op_type for node in model.graph.node]
    assert (kinds.count("Conv"), kinds.count("Sub"), "Mul" in kinds) == (1, 1, False)
    number = next(numpy_helper.to_array(each) for each in model.graph.initializer if each.name.endswith("_number"))
    assert number == np.rint(number)
    np.testing.assert_allclose(run(model, image), expected, atol=2e-2)  # padding counts as one number, not three
    assert not absorb_normalisation(model)


def test_means_of_pixels_from_0_to_1_are_far_from_a_whole_number():
    model = picture_net()
    for each in model.graph.initializer:
        if each.name in {"mean", "scale"}:
            factor = 1 / 255 if each.name == "mean" else 255
            values = (numpy_helper.to_array(each) * factor).astype(np.float32)
            each.CopyFrom(numpy_helper.from_array(values, each.name))
    assert not absorb_normalisation(model)
    assert join_normalisation(model)


def test_one_number_for_three_channels_is_no_convolution_of_each():
    model = picture_net()
    for each in model.graph.initializer:
        if each.name in {"mean", "scale"}:
            each.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(each)[:, :1], each.name))
    assert not join_normalisation(model)


def test_means_far_from_one_number_stay_a_convolution_of_their_own():
    model = picture_net()
    mean = next(each for each in model.graph.initializer if each.name == "mean")
    mean.CopyFrom(numpy_helper.from_array(np.array([0, 128, 255], np.float32).reshape(1, 3, 1, 1), "mean"))
    assert not absorb_normalisation(model)
    assert join_normalisation(model)


def test_the_trunk_lies_between_the_weighty_operators():
    model = picture_net()
    name_nodes(model)
    trunk = find_trunk(model)
    kinds = {node.name: node.op_type for node in model.graph.node}
    assert {kinds[name] for name in trunk.inside} == {"Conv", "LeakyRelu", "GlobalAveragePool", "Flatten", "Gemm"}
    assert {kinds[name] for name in trunk.outside} == {"Cast", "Transpose", "Sub", "Mul", "Softmax"}


def test_fp16_keeps_types_of_inputs_and_outputs_and_nearly_the_numbers(source, tmp_path):
    report = to_fp16(source, tmp_path / "half.onnx")
    converted = load_model(tmp_path / "half.onnx")
    assert precision_of(converted) == "fp16"
    assert converted.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    assert converted.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    image = pictures(4)
    np.testing.assert_allclose(run(converted, image), run(picture_net(), image), atol=2e-3)
    assert report.lowered == 6
    assert report.kept > 0


def test_weights_beyond_the_range_of_fp16_keep_their_node_in_fp32():
    model = picture_net()
    name_nodes(model)
    for weight in model.graph.initializer:
        if weight.name == "offset":
            weight.CopyFrom(numpy_helper.from_array(np.array([0, 1e6, 0, 0, 0], np.float32), "offset"))
    trunk = find_trunk(model)
    assert convert_nodes(model, trunk.inside) == len(trunk.inside) - 1
    onnx.checker.check_model(model)
    assert np.isfinite(run(model, pictures(1))).all()


@settings(max_examples=20)
@given(st.sets(st.integers(0, 9)))
def test_any_choice_of_nodes_gives_a_valid_model_with_nearly_the_same_numbers(chosen):
    model = picture_net()
    name_nodes(model)
    names = frozenset(model.graph.node[index].name for index in chosen)
    image = pictures(2)
    expected = run(model, image)
    convert_nodes(model, names)
    onnx.checker.check_model(model)
    np.testing.assert_allclose(run(model, image), expected, atol=5e-3)


def test_int8_for_the_cpu_has_unsigned_activations_and_nearly_the_numbers(source, tmp_path):
    to_int8(source, tmp_path / "cpu.onnx", feeds(), "cpu")
    zero_points, model = zero_points_of(tmp_path / "cpu.onnx")
    assert {each.dtype for each in zero_points} == {np.dtype(np.uint8)}
    assert precision_of(model) == "int8"
    image = pictures(4, seed=9)
    np.testing.assert_allclose(run(model, image), run(picture_net(), image), atol=0.05)


def test_int8_for_the_cpu_never_saturates_sums_of_two_products_at_16_bits(source, tmp_path):
    to_int8(source, tmp_path / "cpu.onnx", feeds(), "cpu")
    _, model = zero_points_of(tmp_path / "cpu.onnx")
    weights = [numpy_helper.to_array(each) for each in model.graph.initializer if each.data_type == TensorProto.INT8]
    largest = max(int(np.abs(each.astype(int)).max()) for each in weights)
    assert 32 < largest <= (2**15 - 1) // (2 * 255)


def test_int8_for_tensorrt_is_symmetric_and_leaves_biases_alone(source, tmp_path):
    to_int8(source, tmp_path / "trt.onnx", feeds(), "tensorrt")
    zero_points, model = zero_points_of(tmp_path / "trt.onnx")
    assert {each.dtype for each in zero_points} == {np.dtype(np.int8)}
    assert all(not each.any() for each in zero_points)
    int32_weights = [each.name for each in model.graph.initializer if each.data_type == TensorProto.INT32]
    assert int32_weights == []
    image = pictures(4, seed=9)
    np.testing.assert_allclose(run(model, image, is_fused=False), run(picture_net(), image), atol=0.05)


def test_calibration_reports_its_progress(source, tmp_path):
    seen = []
    to_int8(source, tmp_path / "cpu.onnx", feeds(3), "cpu", lambda done, whole: seen.append((done, whole)))
    assert seen[:3] == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        ([], "no calibration data"),
        ([{"other": pictures(1)}], "'image' is missing"),
        ([{"image": pictures(1).astype(np.float32)}], "float32"),
        ([{"image": pictures(1)[:, :8]}], r"\[1, 8, 16, 3\]"),
        ([{"image": pictures(1)[0]}], r"\[16, 16, 3\]"),
    ],
)
def test_bad_calibration_data_is_refused(source, tmp_path, bad, complaint):
    with pytest.raises(ModelFileError, match=complaint):
        to_int8(source, tmp_path / "cpu.onnx", bad, "cpu")


def test_a_model_without_weights_has_nothing_to_lower(tmp_path):
    source = models.save(models.identity(), tmp_path / "model.onnx")
    with pytest.raises(ModelFileError, match="nothing to"):
        to_fp16(source, tmp_path / "half.onnx")
    with pytest.raises(ModelFileError, match="nothing to"):
        to_int8(source, tmp_path / "int8.onnx", [{"x": np.zeros((1, 4), np.float32)}], "cpu")

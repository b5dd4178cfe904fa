"""A folded model takes bytes and gives what the model gives for the numbers that the worker would write."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from forebay_server.engines import open_device
from forebay_server.engines.changes import ModelChanges
from forebay_server.engines.clock import MonotonicClock
from forebay_server.engines.errors import ModelFileError
from forebay_server.engines.fold import Fold, FoldError, fold_into
from forebay_server.engines.folded_file import folded_file
from forebay_server.engines.onnx_head import read_model
from forebay_server.engines.onnx_wire import onnx_model_pb2 as wire
from forebay_server.service.pictures.picture_input import Values
from forebay_server.service.pictures.value_table import table_of
from tests.support import models
from tests.support.rig import BoundSlot, rig_of

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "scale": 1 / 255}
YOLO = {"mean": (0.0,), "std": (1.0,), "scale": 1 / 255}
PLAIN = {"mean": (0.0,), "std": (1.0,), "scale": 1.0}
CAFFE = {"mean": (103.53, 116.28, 123.675), "std": (1.0,), "scale": 1.0}


def picture_model(layout="NCHW", channels=3, datatype=TensorProto.FLOAT, opset=17, batch="N"):
    shape = (batch, channels, 6, 4) if layout == "NCHW" else (batch, 6, 4, channels)
    node = helper.make_node("Identity", ["images"], ["y"])
    values = [models.tensor("images", shape, datatype)], [models.tensor("y", shape, datatype)]
    ir_version = 10 if opset >= 9 else 3
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(helper.make_graph([node], "test", *values), opset_imports=opsets, ir_version=ir_version)


def run(path, content, pixels):
    with rig_of(open_device("cpu", clock=MonotonicClock())) as rig:
        engine = rig.open_engine("onnxruntime", path, max_batch_size=2, changes=ModelChanges(content))
        assert engine.specs.inputs[0].dtype == np.uint8
        return BoundSlot(rig, engine, 0).run([pixels])


def bytes_of(channels, rows=2):
    return np.random.default_rng(1).integers(0, 256, (rows, 6, 4, channels), np.uint8)


@pytest.mark.parametrize("numbers", [IMAGENET, YOLO, PLAIN, CAFFE], ids=["imagenet", "yolo", "plain", "caffe"])
@pytest.mark.parametrize("datatype", [TensorProto.FLOAT, TensorProto.FLOAT16])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_numbers_are_those_of_the_worker(tmp_path, layout, datatype, numbers):
    path = models.save(picture_model(layout, datatype=datatype), tmp_path / "model.onnx")
    pixels = bytes_of(3)
    content = folded_file(path, Fold("images", layout, 3, **numbers), None)
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    (found,) = run(path, content, pixels)
    expected = (pixels * numbers["scale"] - np.array(numbers["mean"])) / np.array(numbers["std"])
    expected = expected.transpose(0, 3, 1, 2) if layout == "NCHW" else expected
    kind = np.float32 if datatype == TensorProto.FLOAT else np.float16
    step = np.spacing(np.abs(expected).max().astype(kind))
    assert found.dtype == kind
    assert np.abs(found.astype(float) - expected).max() <= 2 * step


@pytest.mark.parametrize("datatype", [TensorProto.FLOAT, TensorProto.FLOAT16])
@pytest.mark.parametrize("numbers", [YOLO, PLAIN, {**YOLO, "std": (0.5,)}], ids=["yolo", "plain", "half"])
def test_quotients_are_those_of_the_worker_to_the_last_bit(tmp_path, numbers, datatype):
    """Networks of noise make thousandths of a score from a last bit, and pixels of a box from one of FP16."""
    path = models.save(picture_model("NHWC", datatype=datatype), tmp_path / "model.onnx")
    pixels = np.arange(256, dtype=np.uint8).repeat(18).reshape(64, 6, 4, 3)
    dtype = "float32" if datatype == TensorProto.FLOAT else "float16"
    table = table_of(Values("NHWC", dtype, **numbers), 1)[0]
    content = folded_file(path, Fold("images", "NHWC", 3, **numbers), None)
    for rows in np.split(pixels, 32):
        (found,) = run(path, content, rows)
        assert np.array_equal(found, table[rows])


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 19, 21])
def test_every_opset_from_the_oldest_on(tmp_path, opset):
    path = models.save(picture_model(opset=opset), tmp_path / "model.onnx")
    content = folded_file(path, Fold("images", "NCHW", 3, **IMAGENET), None)
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    run(path, content, bytes_of(3))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_one_channel(tmp_path, layout):
    path = models.save(picture_model(layout, 1), tmp_path / "model.onnx")
    pixels = bytes_of(1)
    (found,) = run(path, folded_file(path, Fold("images", layout, 1, **YOLO), None), pixels)
    assert np.allclose(found.reshape(2, 6, 4), pixels[..., 0] / 255, atol=1e-7)


def test_everything_else_of_the_file_is_kept(tmp_path):
    model = models.conv_net()
    model.metadata_props.add(key="names", value="{0: 'cat'}")
    model.doc_string = "kept though Forebay does not know the field"
    path = models.save(model, tmp_path / "model.onnx")
    folded = onnx.load_from_string(folded_file(path, Fold("image", "NCHW", 3, **IMAGENET), None))
    original = onnx.load(path)
    assert folded.doc_string == original.doc_string
    assert list(folded.metadata_props) == list(original.metadata_props)
    assert list(folded.graph.initializer)[: len(original.graph.initializer)] == list(original.graph.initializer)
    kinds = ["Constant", "Constant", "Transpose", "Cast", "Mul", "Sub"]
    assert [node.op_type for node in folded.graph.node][:6] == kinds
    assert list(folded.graph.node)[7:] == list(original.graph.node)[1:]
    assert list(folded.graph.output) == list(original.graph.output)


def test_a_branch_that_uses_the_picture_uses_the_numbers(tmp_path):
    """The tensor's name inside of a branch is that of the graph around it."""
    shape = ("N", 3, 6, 4)
    inside = models.tensor("inside", shape)
    branches = {
        name: helper.make_graph([helper.make_node(kind, ["images", *more], ["inside"])], name, [], [inside])
        for name, kind, more in (("then_branch", "Identity", ()), ("else_branch", "Add", ("images",)))
    }
    condition = numpy_helper.from_array(np.array(False), "condition")
    node = helper.make_node("If", ["condition"], ["y"], **branches)
    path = models.save(
        models.build([node], [models.tensor("images", shape)], [models.tensor("y", shape)], [condition]),
        tmp_path / "model.onnx",
    )
    pixels = bytes_of(3)
    (found,) = run(path, folded_file(path, Fold("images", "NCHW", 3, **YOLO), None), pixels)
    assert np.allclose(found, pixels.transpose(0, 3, 1, 2) / 127.5, atol=1e-6)


def test_weights_in_another_file_are_found(tmp_path):
    model = models.conv_net()
    onnx.save_model(
        model, tmp_path / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    path = tmp_path / "model.onnx"
    content = folded_file(path, Fold("image", "NCHW", 3, **YOLO), None)
    pixels = np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3), np.uint8)
    (found,) = run(path, content, pixels)
    (expected,) = models.reference(models.conv_net(), [(pixels / 255).astype(np.float32).transpose(0, 3, 1, 2)])
    assert np.allclose(found, expected, atol=1e-4)


def test_weights_outside_of_the_folder_are_not_read(tmp_path):
    model = models.conv_net()
    (tmp_path / "m").mkdir()
    path = tmp_path / "m" / "model.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "m" / "weights.bin").rename(tmp_path / "weights.bin")
    (tmp_path / "m" / "weights.bin").symlink_to(tmp_path / "weights.bin")
    content = folded_file(path, Fold("image", "NCHW", 3, **YOLO), None)
    with pytest.raises(ModelFileError, match="escapes model directory"):
        run(path, content, np.zeros((1, 16, 16, 3), np.uint8))


def unchanged(model, fold):
    parsed = wire.ModelProto.FromString(model.SerializeToString())
    before = parsed.SerializeToString()
    with pytest.raises(FoldError) as error:
        fold_into(parsed, fold)
    assert parsed.SerializeToString() == before
    return str(error.value)


def test_what_cannot_be_folded_stays_as_it_is():
    fold = Fold("images", "NCHW", 3, **YOLO)
    assert "opset 6, before 7" in unchanged(picture_model(opset=6), fold)
    assert "is not FP32 or FP16" in unchanged(picture_model(datatype=TensorProto.UINT8), fold)
    assert "has no input 'x'" in unchanged(picture_model(), Fold("x", "NCHW", 3, **YOLO))
    through = picture_model()
    through.graph.output.append(through.graph.input[0])
    assert "is an output too" in unchanged(through, fold)


def test_a_folded_file_is_kept_for_its_model_and_its_fold(tmp_path):
    cache, path = tmp_path / "cache", models.save(picture_model(), tmp_path / "model.onnx")
    fold = Fold("images", "NCHW", 3, **YOLO)
    content = folded_file(path, fold, cache)
    (kept,) = (cache / "folds").iterdir()
    assert kept.read_bytes()[32:] == content
    assert folded_file(path, fold, cache) == content
    folded_file(path, Fold("images", "NCHW", 3, **IMAGENET), cache)
    models.save(picture_model(batch=2), path)
    folded_file(path, fold, cache)
    assert len(list((cache / "folds").iterdir())) == 3


def test_a_kept_file_that_is_torn_is_made_anew(tmp_path):
    cache, path = tmp_path / "cache", models.save(picture_model(), tmp_path / "model.onnx")
    fold = Fold("images", "NCHW", 3, **YOLO)
    content = folded_file(path, fold, cache)
    (kept,) = (cache / "folds").iterdir()
    for torn in (kept.read_bytes()[:-1], b"", b"x" * 100):
        kept.write_bytes(torn)
        assert folded_file(path, fold, cache) == content
        assert kept.read_bytes()[32:] == content


def test_a_file_that_is_replaced_while_it_is_read_is_not_kept_under_the_name_of_the_old_one(tmp_path, monkeypatch):
    cache, path = tmp_path / "cache", models.save(picture_model(), tmp_path / "model.onnx")
    old, fold = path.read_bytes(), Fold("images", "NCHW", 3, **YOLO)

    def read_replaced(path):
        models.save(picture_model(batch=2), path)
        return read_model(path)

    with monkeypatch.context() as patched:
        patched.setattr("forebay_server.engines.folded_file.read_model", read_replaced)
        replaced = folded_file(path, fold, cache)
    path.write_bytes(old)
    assert folded_file(path, fold, cache) != replaced


def test_a_cache_that_cannot_be_written_keeps_nothing(tmp_path):
    path = models.save(picture_model(), tmp_path / "model.onnx")
    (tmp_path / "file").write_text("no folder")
    assert folded_file(path, Fold("images", "NCHW", 3, **YOLO), tmp_path / "file")


def test_dimensions_are_fixed_by_name(tmp_path):
    shape = ("N", 3, "height", "width")
    node = helper.make_node("Flatten", ["images"], ["y"])
    model = models.build([node], [models.tensor("images", shape)], [models.tensor("y", ("N", "all"))])
    path = models.save(model, tmp_path / "model.onnx")
    with rig_of(open_device("cpu", clock=MonotonicClock())) as rig:
        changes = ModelChanges(dimensions={"height": 6, "width": 4})
        specs = rig.open_engine("onnxruntime", path, changes=changes).specs
    assert (specs.inputs[0].shape, specs.outputs[0].shape) == ((3, 6, 4), (72,))


def test_a_file_that_is_no_model_is_refused(tmp_path):
    path = tmp_path / "model.onnx"
    for content in (b"no model at all", b"\x08\x07" * 3):
        path.write_bytes(content)
        with pytest.raises(ModelFileError, match="not an ONNX file"):
            read_model(path)

"""The declarations of an ONNX file equal those that ONNX Runtime reports, and limits bound what is kept."""

import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from forebay_server.engines import onnx_head
from forebay_server.engines.errors import ModelFileError
from forebay_server.engines.onnx_head import read_head
from forebay_server.engines.onnx_wire import onnx_model_pb2 as wire
from tests.support import models
from tests.support.repository import ROOT


@pytest.mark.parametrize("make", [models.identity, models.add_sub, models.conv_net], ids=lambda make: make.__name__)
def test_inputs_and_outputs_are_those_of_the_session(tmp_path, make):
    path = models.save(make(), tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    head = read_head(path)
    for nodes, expected in ((head.inputs, session.get_inputs()), (head.outputs, session.get_outputs())):
        assert [(n.name, n.type, n.shape) for n in nodes] == [(n.name, n.type, tuple(n.shape)) for n in expected]
    assert (head.has_external_data, head.nbytes) == (False, path.stat().st_size)


@pytest.mark.parametrize("name", ["detector", "faces"])
def test_a_real_file_is_written_as_it_was_read(name):
    content = (ROOT / "models" / name / "1" / "model.onnx").read_bytes()
    written = wire.ModelProto.FromString(content).SerializeToString()
    assert len(written) == len(content)
    assert onnx.load_from_string(written) == onnx.load_from_string(content)  # in the order of their numbers now


def test_every_type_of_a_tensor_has_the_word_of_onnx_runtime(tmp_path):
    for kind, word in onnx_head._TYPES.items():
        model = models.identity(onnx_type=kind)
        assert read_head(models.save(model, tmp_path / "model.onnx")).inputs[0].type == f"tensor({word})"


def test_dimensions_without_a_name_are_open(tmp_path):
    head = read_head(models.save(models.identity(("batch", None, 4)), tmp_path / "model.onnx"))
    assert head.inputs[0].shape == ("batch", None, 4)


def test_weights_that_are_listed_among_the_inputs_are_none(tmp_path):
    model = models.conv_net()
    model.graph.input.append(helper.make_tensor_value_info("kernel", TensorProto.FLOAT, [8, 3, 3, 3]))
    head = read_head(models.save(model, tmp_path / "model.onnx"))
    assert [node.name for node in head.inputs] == ["image"]


def test_metadata_is_bounded(tmp_path):
    model = models.identity()
    helper.set_model_props(model, {"names": "{0: 'cat'}", "task": "detect", "k" * 300: "", "long": "v" * (1 << 21)})
    path = models.save(model, tmp_path / "model.onnx")
    metadata = dict(read_head(path).metadata)
    assert len(metadata.pop("long")) == onnx_head.MAX_VALUE_CHARACTERS + 1
    assert metadata == {"names": "{0: 'cat'}", "task": "detect"}
    helper.set_model_props(model, {str(number): "" for number in range(1000)})
    assert len(read_head(models.save(model, path)).metadata) == onnx_head.MAX_ENTRIES


def test_weights_in_another_file_are_noticed(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save_model(models.conv_net(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert read_head(path).has_external_data


def test_names_that_are_no_text_are_refused(tmp_path):
    content = models.identity().SerializeToString().replace(b"\x0a\x01x", b"\x0a\x01\xff")
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ModelFileError, match="is not UTF-8"):
        read_head(tmp_path / "model.onnx")


@pytest.mark.parametrize("content", [b"", b"no model at all", b"\x08\x07" * 3], ids=["empty", "text", "no graph"])
def test_a_file_that_is_no_model_is_refused(tmp_path, content):
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ModelFileError, match=r"model\.onnx: (not an ONNX file|the file is empty)"):
        read_head(tmp_path / "model.onnx")


def test_half_a_file_is_refused(tmp_path):
    content = models.conv_net().SerializeToString()
    (tmp_path / "model.onnx").write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelFileError, match="not an ONNX file"):
        read_head(tmp_path / "model.onnx")

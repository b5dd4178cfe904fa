"""ONNX Runtime beyond the contract: bad files, failing runs, fixed batches, tensors that cannot be bound."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from forebay_server.engines import open_device
from forebay_server.engines.clock import MonotonicClock
from forebay_server.engines.engine import SlotBuffers
from forebay_server.engines.errors import ExecutionError, MisuseError, ModelFileError
from tests.support import models
from tests.support.rig import BoundSlot, rig_of


@pytest.fixture
def rig():
    with rig_of(open_device("cpu", clock=MonotonicClock())) as rig:
        yield rig


def open_model(rig, path, max_batch_size=4):
    return rig.open_engine("onnxruntime", path, max_batch_size=max_batch_size)


@pytest.mark.parametrize("content", [None, b"", b"not a model", b"\x08\x0a\x12\x00" * 50])
def test_a_file_that_cannot_be_loaded_is_one_clear_line(rig, tmp_path, content):
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"model\.onnx") as raised:
        open_model(rig, path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "form"),
    [
        (b"PK\x03\x04\x00\x00\x08\x08", "an archive, such as PyTorch writes"),
        (b"\x80\x02}q\x00.", "a pickle, such as a state_dict of PyTorch"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file, such as Keras writes"),
        (b"\x1c\x00\x00\x00TFL3", "a file of TensorFlow Lite"),
        (b"<html>\n404 not found\n</html>\n", "text"),
    ],
)
def test_a_file_of_another_format_is_called_by_it(rig, tmp_path, content, form):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=rf"model\.onnx: .* it is {form}: export the model as ONNX"):
        open_model(rig, path)


def test_a_truncated_model_is_refused(rig, tmp_path):
    path = models.save(models.conv_net(), tmp_path / "model.onnx")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelFileError, match="cannot load it"):
        open_model(rig, path)


def test_a_run_that_fails_is_an_execution_error_and_the_next_one_is_fine(rig, tmp_path):
    engine = open_model(rig, models.save(models.failing(), tmp_path / "model.onnx"))
    slot = BoundSlot(rig, engine, 0)
    good, bad = np.array([[0, 1, 1, 0]], np.float32), np.array([[0, 7, 1, 0]], np.float32)
    with pytest.raises(ExecutionError, match="batch of 1 failed"):
        slot.run([bad])
    np.testing.assert_array_equal(slot.run([good])[0], [[10, 20, 20, 10]])


def test_a_fixed_batch_runs_with_fewer_rows(rig, tmp_path):
    model = models.conv_net(4)
    engine = open_model(rig, models.save(model, tmp_path / "model.onnx"))
    assert engine.specs.max_batch_size == 4
    slot = BoundSlot(rig, engine, 0)
    engine.warm_up((1, 2), slot.compute)
    images = np.random.default_rng(3).normal(size=(4, 3, 16, 16)).astype(np.float32)
    expected = models.reference(model, [images])[0]
    for rows in (1, 3, 4):
        np.testing.assert_allclose(slot.run([images[:rows]])[0], expected[:rows], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "onnx_type"), [(("n", "width"), onnx.TensorProto.FLOAT), (("n", 3), onnx.TensorProto.STRING)]
)
def test_a_tensor_without_a_fixed_size_is_in_the_specs_but_cannot_be_bound(rig, tmp_path, shape, onnx_type):
    engine = open_model(rig, models.save(models.identity(shape, onnx_type), tmp_path / "model.onnx"))
    assert not engine.specs.inputs[0].is_fixed
    buffer = rig.on_device(100)
    with pytest.raises(ModelFileError, match="'x' has no fixed size"):
        engine.bind(SlotBuffers(0, (buffer,), (buffer,)))


def test_a_buffer_that_is_too_small_is_refused(rig, tmp_path):
    engine = open_model(rig, models.save(models.identity(("n", 4)), tmp_path / "model.onnx"))
    large, small = rig.on_device(64), rig.on_device(63)
    with pytest.raises(MisuseError, match="'y' needs 64 bytes, not 63"):
        engine.bind(SlotBuffers(0, (large,), (small,)))


def test_two_engines_on_one_file_are_independent(rig, tmp_path):
    path = models.save(models.add_sub(("n", 4)), tmp_path / "model.onnx")
    first, second = open_model(rig, path), open_model(rig, path)
    slots = BoundSlot(rig, first, 0), BoundSlot(rig, second, 0)
    first.close()
    ones = np.ones((2, 4), np.int32)
    np.testing.assert_array_equal(slots[1].run([ones, ones])[0], ones * 2)


@pytest.mark.parametrize("kind", ["SequenceConstruct", "Optional"])
def test_outputs_that_are_no_tensors_are_refused_by_name(rig, tmp_path, kind):
    inner = helper.make_tensor_type_proto(TensorProto.FLOAT, ("batch", 4))
    wrap = helper.make_sequence_type_proto if kind == "SequenceConstruct" else helper.make_optional_type_proto
    model = models.build(
        [helper.make_node(kind, ["x"], ["y"])],
        [models.tensor("x", ("batch", 4))],
        [helper.make_value_info("y", wrap(inner))],
    )
    with pytest.raises(
        ModelFileError, match=r"tensor 'y' has type .*, which the Open Inference Protocol does not have"
    ):
        rig.open_engine("onnxruntime", models.save(model, tmp_path / "model.onnx"))

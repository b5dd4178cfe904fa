"""Values derived from a model file alone, without config.pbtxt; for PyTorch in tests/heavy/vendor."""

import sys

import pytest

from forebay.wire.model_config_pb2 import DataType, ModelInstanceGroup
from forebay_server.engines.clock import MonotonicClock
from forebay_server.engines.device_host import HostDevice
from forebay_server.engines.errors import ModelFileError
from forebay_server.engines.trt import library
from forebay_server.service.models.completion import complete
from forebay_server.service.models.config import describe
from forebay_server.service.models.config_text import ConfigError
from forebay_server.service.models.files import model_file, serving_versions
from forebay_server.service.models.repository import Repository
from tests.support import fake_tensorrt, models
from tests.support.fake_tensorrt import FakeGpu, FakeTensorrt, write_plan
from tests.support.rig import rig_of

FLOAT, INT32 = DataType.TYPE_FP32, DataType.TYPE_INT32


def derived(root, device, name="m"):
    """The normalised configuration of the only version, as loading it would make it."""
    entry = Repository([root]).model(name)
    description = describe(entry)
    (version,) = serving_versions(entry, description)
    with rig_of(device) as rig:
        engine = rig.open_engine(
            description.backend,
            model_file(entry, version, description),
            options=description.engine_options,
            max_batch_size=description.max_batch_size,
        )
        return complete(description, engine.specs).config


def tensors(config):
    return [(tensor.name, tensor.data_type, list(tensor.dims)) for tensor in (*config.input, *config.output)]


def save(root, model, text=None):
    models.save(model, root / "m" / "1" / "model.onnx")
    if text is not None:
        (root / "m" / "config.pbtxt").write_text(text)


@pytest.mark.parametrize(
    ("shape", "size", "dims"),
    [
        (("batch", 16), 8, [16]),
        ((None, 3, None), 8, [3, -1]),
        (("batch",), 8, [1]),
        ((1, 16), 1, [16]),
        ((4, 16), 0, [4, 16]),
        ((4, "n"), 0, [4, -1]),
    ],
)
def test_batch_and_dims_follow_from_the_shapes_of_an_onnx_model(tmp_path, shape, size, dims):
    save(tmp_path, models.add_sub(shape))
    config = derived(tmp_path, HostDevice(clock=MonotonicClock()))
    assert (config.name, config.backend, config.platform) == ("m", "onnxruntime", "onnxruntime_onnx")
    assert config.default_model_filename == "model.onnx"
    assert tensors(config) == [(name, INT32, dims) for name in ("INPUT0", "INPUT1", "OUTPUT0", "OUTPUT1")]
    assert config.max_batch_size == size
    assert config.HasField("dynamic_batching") is (size > 1)
    assert list(config.dynamic_batching.preferred_batch_size) == ([size] if size > 1 else [])
    assert [(group.count, group.kind) for group in config.instance_group] == [(1, ModelInstanceGroup.KIND_CPU)]


def test_what_is_written_is_kept_and_the_rest_is_filled_in(tmp_path):
    save(
        tmp_path,
        models.add_sub(),
        'max_batch_size: 5 input { name: "INPUT1" dims: [ 4, 4 ] reshape { shape: 16 } } '
        "dynamic_batching { max_queue_delay_microseconds: 7 } instance_group { count: 2 }",
    )
    config = derived(tmp_path, HostDevice(clock=MonotonicClock()))
    assert tensors(config) == [
        ("INPUT0", INT32, [16]),
        ("INPUT1", INT32, [4, 4]),
        ("OUTPUT0", INT32, [16]),
        ("OUTPUT1", INT32, [16]),
    ]
    assert (config.max_batch_size, config.dynamic_batching.max_queue_delay_microseconds) == (5, 7)
    assert [(group.name, group.count) for group in config.instance_group] == [("m_0", 2)]


def test_a_batch_size_for_a_model_without_a_batch_is_an_error_with_its_fix(tmp_path):
    save(tmp_path, models.add_sub((4, 16)), "max_batch_size: 8")
    with pytest.raises(ModelFileError, match="export it with a dynamic batch dimension or set max_batch_size to"):
        derived(tmp_path, HostDevice(clock=MonotonicClock()))


def test_the_batch_in_dims_is_an_error_with_its_fix(tmp_path):
    save(tmp_path, models.add_sub(), 'max_batch_size: 8 input { name: "INPUT0" dims: [ 8, 16 ] }')
    with pytest.raises(ConfigError, match=r"write these, without the batch dimension if max_batch_size is above 0"):
        derived(tmp_path, HostDevice(clock=MonotonicClock()))


def test_a_plan_says_everything_itself(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", FakeTensorrt("tensorrt"))
    monkeypatch.setattr(library, "_loaded", {})
    monkeypatch.setattr(fake_tensorrt, "machine", fake_tensorrt.Machine())
    (tmp_path / "m" / "1").mkdir(parents=True)
    write_plan(tmp_path / "m" / "1")
    config = derived(tmp_path, FakeGpu())
    assert (config.backend, config.platform) == ("tensorrt", "tensorrt_plan")
    assert config.default_model_filename == "model.plan"
    assert tensors(config) == [("x", FLOAT, [4]), ("y", FLOAT, [4])]
    assert config.max_batch_size == fake_tensorrt.MAX_ROWS
    assert list(config.dynamic_batching.preferred_batch_size) == [fake_tensorrt.MAX_ROWS]
    (group,) = config.instance_group
    assert (group.kind, list(group.gpus)) == (ModelInstanceGroup.KIND_GPU, [0])

"""ONNX files that are broken, foreign or point elsewhere; inspection; the runner; operator times."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from forebay_server.engines.build.inspection import inspect_file
from forebay_server.engines.build.layer_times import onnx_layer_times
from forebay_server.engines.build.onnx_file import load_model
from forebay_server.engines.build.runner import ModelRunner
from forebay_server.engines.errors import ModelFileError
from tests.support import models
from tests.support.fake_tensorrt import write_plan


@pytest.mark.parametrize("data", [b"", b"no model", models.conv_net().SerializeToString()[:300]])
def test_a_broken_file_is_a_clear_error(tmp_path, data):
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match=r"model\.onnx"):
        load_model(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelFileError, match="no such file"):
        load_model(tmp_path / "model.onnx")


def with_external_data(path, location):
    model = models.conv_net()
    weight = model.graph.initializer[0]
    data = numpy_helper.to_array(weight).tobytes()
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(len(data)))):
        entry = weight.external_data.add()
        entry.key, entry.value = key, value
    path.write_bytes(model.SerializeToString())
    return data


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "folder/../../secret.bin"])
def test_external_data_outside_the_folder_is_not_read(tmp_path, location):
    (tmp_path / "secret.bin").write_bytes(bytes(4000))
    path = tmp_path / "model" / "model.onnx"
    path.parent.mkdir()
    with_external_data(path, location)
    with pytest.raises(ModelFileError, match="outside the model's folder"):
        load_model(path)


def test_external_data_beside_the_model_is_read_and_missed_if_it_is_gone(tmp_path):
    path = tmp_path / "model.onnx"
    data = with_external_data(path, "weights.bin")
    with pytest.raises(ModelFileError, match="missing"):
        load_model(path)
    (tmp_path / "weights.bin").write_bytes(data)
    assert numpy_helper.to_array(load_model(path).graph.initializer[0]).tobytes() == data


def test_an_onnx_model_is_described(tmp_path):
    found = inspect_file(models.save(models.conv_net(), tmp_path / "model.onnx"))
    assert (found.kind, found.precision) == ("onnx", "fp32")
    assert found.tensors[0] == {
        "direction": "input",
        "name": "image",
        "type": "FLOAT",
        "shape": "['batch', 3, 16, 16]",
    }
    assert found.operators["Conv"] == 1
    assert found.memory["weights"] == 4 * (8 * 27 + 80 + 10)


def test_a_plan_is_described_by_its_manifest_where_it_cannot_be_opened(tmp_path):
    shapes = {"x": [[1, 4], [8, 4], [8, 4]]}
    path = write_plan(tmp_path, manifest={"profiles": [shapes], "settings": {"workspace_mib": "64"}})
    found = inspect_file(path)
    assert found.profiles == ["x [1, 4] .. [8, 4], best at [8, 4]"]
    assert found.facts["matches its manifest"] == "yes"
    assert found.facts["workspace_mib"] == "64"
    path.write_bytes(b"changed")
    assert inspect_file(path).facts["matches its manifest"].startswith("no")


def test_the_runner_runs_a_model_and_frees_it(tmp_path):
    model = models.conv_net()
    values = np.random.default_rng(0).normal(size=(3, 3, 16, 16)).astype(np.float32)
    with ModelRunner(models.save(model, tmp_path / "model.onnx")) as runner:
        runner.warm_up((1, 3))
        outputs, times = runner.run([values])
    np.testing.assert_allclose(outputs[0], models.reference(model, [values])[0], atol=1e-5)
    assert min(times.h2d_ns, times.execute_ns, times.d2h_ns) >= 0


def test_a_file_that_is_no_model_by_its_name_is_refused(tmp_path):
    with pytest.raises(ModelFileError, match=r"\.onnx, \.plan"):
        ModelRunner(tmp_path / "model.txt")


def test_operators_are_timed(tmp_path):
    path = models.save(models.conv_net(), tmp_path / "model.onnx")
    times = onnx_layer_times(path, {"image": np.zeros((1, 3, 16, 16), np.float32)}, runs=3)
    assert sum(each.share for each in times) == pytest.approx(1)
    assert times == sorted(times, key=lambda each: -each.mean_us)
    assert not list(tmp_path.glob("profile*"))

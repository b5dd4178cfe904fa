"""Nothing outside a model's folder is read for it."""

import numpy as np
import onnx
import pytest
from onnx import helper

from forebay_server.engines import open_device
from forebay_server.engines.clock import MonotonicClock
from forebay_server.engines.errors import ModelFileError
from tests.support import models
from tests.support.rig import rig_of


@pytest.mark.parametrize("location", ["../../secret.bin", "link.bin"])
def test_weights_outside_the_folder_of_the_model_are_not_read(tmp_path, location):
    weights = np.arange(4, dtype=np.float32)
    (tmp_path / "secret.bin").write_bytes(weights.tobytes())
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[4], data_location="EXTERNAL")
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=value)
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    values = [models.tensor("x", ("batch", 4))], [models.tensor("y", ("batch", 4))]
    graph = helper.make_graph(nodes, "test", *values, [tensor])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    path = models.save(model, tmp_path / "m" / "1" / "model.onnx")
    (path.parent / "link.bin").symlink_to(tmp_path / "secret.bin")
    with (
        rig_of(open_device("cpu", clock=MonotonicClock())) as rig,
        pytest.raises(ModelFileError, match="escapes model directory"),
    ):
        rig.open_engine("onnxruntime", path)

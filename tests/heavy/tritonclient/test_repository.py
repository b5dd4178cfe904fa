"""A repository as in Triton's guides, served unchanged to an unmodified tritonclient."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.heavy.tritonclient.conftest import serving
from tests.support import models

grpcclient = pytest.importorskip("tritonclient.grpc")
from tritonclient.utils import InferenceServerException, np_to_triton_dtype  # noqa: E402 - after the skip

SIMPLE = """
name: "simple"
platform: "onnxruntime_onnx"
max_batch_size: 8
input [
  { name: "INPUT0" data_type: TYPE_INT32 dims: [ 16 ] },
  { name: "INPUT1" data_type: TYPE_INT32 dims: [ 16 ] }
]
output [
  { name: "OUTPUT0" data_type: TYPE_INT32 dims: [ 16 ] },
  { name: "OUTPUT1" data_type: TYPE_INT32 dims: [ 16 ] }
]
"""
# As in Triton's quick start: no batch dimension for clients, one in the model, and labels.
DENSENET = """
name: "densenet_onnx"
platform: "onnxruntime_onnx"
max_batch_size : 0
input [
  {
    name: "data_0"
    data_type: TYPE_FP32
    format: FORMAT_NCHW
    dims: [ 3, 32, 32 ]
    reshape { shape: [ 1, 3, 32, 32 ] }
  }
]
output [
  {
    name: "fc6_1"
    data_type: TYPE_FP32
    dims: [ 10 ]
    reshape { shape: [ 1, 10, 1, 1 ] }
    label_filename: "densenet_labels.txt"
  }
]
"""
RESNET = """
name: "resnet"
backend: "onnxruntime"
max_batch_size: 8
input { name: "image" data_type: TYPE_FP32 dims: [ 3, -1, -1 ] }
output { name: "scores" data_type: TYPE_FP32 dims: [ 10 ] }
instance_group [ { count: 2 kind: KIND_CPU } ]
dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100 }
version_policy: { latest { num_versions: 1 } }
optimization {
  execution_accelerators { cpu_execution_accelerator : [ { name : "openvino" } ] }
  graph : { level : 1 }
}
parameters { key: "intra_op_thread_count" value: { string_value: "1" } }
parameters { key: "execution_mode" value: { string_value: "0" } }
model_warmup [
  {
    name: "warm"
    batch_size: 1
    inputs { key: "image" value { data_type: TYPE_FP32 dims: [ 3, 16, 16 ] random_data: true } }
  }
]
response_cache { enable: true }
"""


def put(root, name, model, config="", version=1):
    models.save(model, root / name / str(version) / "model.onnx")
    if config:
        (root / name / "config.pbtxt").write_text(config)


def densenet():
    """data_0 (1, 3, 32, 32) -> fc6_1 (1, 10, 1, 1)."""
    weight = numpy_helper.from_array(np.random.default_rng(0).normal(size=(10, 3, 1, 1)).astype(np.float32), "weight")
    nodes = [
        helper.make_node("GlobalAveragePool", ["data_0"], ["pooled"]),
        helper.make_node("Conv", ["pooled", "weight"], ["fc6_1"]),
    ]
    inputs, outputs = [models.tensor("data_0", (1, 3, 32, 32))], [models.tensor("fc6_1", (1, 10, 1, 1))]
    return models.build(nodes, inputs, outputs, [weight])


def arg_max():
    """x (batch, 5) -> best (batch): one number a row, which is a scalar without the batch."""
    node = helper.make_node("ArgMax", ["x"], ["best"], axis=1, keepdims=0)
    best = models.tensor("best", ("batch",), TensorProto.INT64)
    return models.build([node], [models.tensor("x", ("batch", 5))], [best])


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    root = tmp_path_factory.mktemp("triton")
    put(root, "simple", models.add_sub(), SIMPLE)
    put(root, "densenet_onnx", densenet(), DENSENET)
    (root / "densenet_onnx" / "densenet_labels.txt").write_text("\n".join(f"CLASS {n}" for n in range(10)))
    put(root, "resnet", models.conv_net(), RESNET)
    put(root, "resnet", models.conv_net(seed=8), version=3)
    put(root, "best", arg_max())
    put(root, "free", models.identity(("batch", "n", "m")))
    put(root, "strings", models.identity(("batch", 1), TensorProto.STRING))
    with serving(root) as address, grpcclient.InferenceServerClient(address) as client:
        yield client


def tensor(name, array):
    value = grpcclient.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
    value.set_data_from_numpy(array)
    return value


def test_every_model_is_ready_in_the_version_that_its_policy_chooses(client):
    index = {(model.name, model.version): model.state for model in client.get_model_repository_index().models}
    names = ["best", "densenet_onnx", "free", "resnet", "simple", "strings"]
    versions = {name: "3" if name == "resnet" else "1" for name in names}
    assert index == {(name, versions[name]): "READY" for name in names}


def test_the_model_of_the_quick_start_gives_classes_with_labels(client):
    image = np.random.default_rng(1).normal(size=(3, 32, 32)).astype(np.float32)
    scores = client.infer("densenet_onnx", [tensor("data_0", image)]).as_numpy("fc6_1")
    assert scores.shape == (10,)
    wanted = grpcclient.InferRequestedOutput("fc6_1", class_count=3)
    classes = client.infer("densenet_onnx", [tensor("data_0", image)], outputs=[wanted]).as_numpy("fc6_1")
    best = np.argsort(-scores)[:3]
    assert [text.decode() for text in classes] == [f"{scores[n]:f}:{n}:CLASS {n}" for n in best]
    with pytest.raises(InferenceServerException, match=r"Expected \[3,32,32\], got \[1,3,32,32\]"):
        client.infer("densenet_onnx", [tensor("data_0", image[np.newaxis])])


def test_the_configuration_comes_back_normalised(client):
    config = client.get_model_config("resnet").config
    assert (config.platform, config.default_model_filename) == ("onnxruntime_onnx", "model.onnx")
    assert [(group.name, group.count) for group in config.instance_group] == [("resnet_0", 2)]
    assert list(config.dynamic_batching.preferred_batch_size) == [4, 8]
    derived = client.get_model_config("best").config
    assert [(t.name, t.data_type, list(t.dims)) for t in derived.input] == [("x", 11, [5])]
    assert [(t.name, t.data_type, list(t.dims), list(t.reshape.shape)) for t in derived.output] == [
        ("best", 9, [1], [])
    ]
    assert derived.max_batch_size == 8
    assert derived.HasField("dynamic_batching")


def test_metadata_lead_with_the_batch_only_where_there_is_one(client):
    shapes = {}
    for name in ("simple", "densenet_onnx", "resnet", "best", "free", "strings"):
        metadata = client.get_model_metadata(name)
        shapes[name] = [list(t.shape) for t in (*metadata.inputs, *metadata.outputs)]
    assert shapes == {
        "simple": [[-1, 16]] * 4,
        "densenet_onnx": [[3, 32, 32], [10]],
        "resnet": [[-1, 3, 16, 16], [-1, 10]],
        "best": [[-1, 5], [-1, 1]],
        "free": [[-1, -1, -1]] * 2,
        "strings": [[-1, 1]] * 2,
    }


def test_every_kind_of_model_answers(client):
    rows = np.eye(5, dtype=np.float32)[[3, 1, 4]]
    np.testing.assert_array_equal(client.infer("best", [tensor("x", rows)]).as_numpy("best"), [[3], [1], [4]])
    for shape in ((1, 2, 3), (4, 1, 7), (2, 3, 0)):
        array = np.random.default_rng(2).normal(size=shape).astype(np.float32)
        np.testing.assert_array_equal(client.infer("free", [tensor("x", array)]).as_numpy("y"), array)
    words = np.array([["é".encode()], [b""]], object)
    np.testing.assert_array_equal(client.infer("strings", [tensor("x", words)]).as_numpy("y"), words)


def test_a_version_is_asked_for_by_number(client):
    image = np.zeros((1, 3, 16, 16), np.float32)
    response = client.infer("resnet", [tensor("image", image)], model_version="3").get_response()
    assert response.model_version == "3"
    with pytest.raises(InferenceServerException, match="'resnet' version 1 is not found"):
        client.infer("resnet", [tensor("image", image)], model_version="1")

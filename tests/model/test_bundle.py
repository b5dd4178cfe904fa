"""The bundled repository is whole: hashes, licences, layout, configurations, graphs that any runtime takes."""

import hashlib

import onnx
import pytest

from forebay_server.service.models.config import describe
from forebay_server.service.models.repository import Repository
from tests.model.bundled import MODELS, open_model

NAMES = ("detector", "faces")
PLAIN_OPERATORS = {
    "Add", "ArgMax", "Cast", "Concat", "Conv", "LeakyRelu", "MatMul", "MaxPool", "Mul", "Pad", "ReduceMax", "Relu",
    "Reshape", "Resize", "Sigmoid", "Softmax", "Split", "Squeeze", "Sub", "Transpose",
}  # fmt: skip


def sums():
    lines = (MODELS / "SHA256SUMS").read_text().splitlines()
    return {name: digest for digest, name in (line.split("  ") for line in lines)}


def data_files():
    return {
        str(path.relative_to(MODELS))
        for pattern in ("**/*.onnx", "**/labels.txt", "*.mp4")
        for path in MODELS.glob(pattern)
    }


def test_every_data_file_has_its_hash():
    assert set(sums()) == data_files()


@pytest.mark.parametrize("name", sorted(data_files()))
def test_data_files_are_what_the_hashes_say(name):
    assert hashlib.sha256((MODELS / name).read_bytes()).hexdigest() == sums()[name]


def test_the_notice_names_every_file_made_by_others():
    notice = (MODELS / "NOTICE").read_text()
    assert [name for name in sums() if name not in notice and name != "faces/labels.txt"] == []


def test_the_bundle_is_a_repository_without_problems():
    scan = Repository([MODELS]).scan()
    assert scan.problems == ()
    assert [(entry.name, entry.versions) for entry in scan.models] == [(name, (1,)) for name in NAMES]


def test_the_detector_holds_exactly_one_model_file():
    assert [str(path.relative_to(MODELS)) for path in MODELS.glob("detector/**/*.onnx")] == ["detector/1/model.onnx"]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_in_a_bundled_configuration_is_ignored(name):
    assert describe(Repository([MODELS]).model(name)).warnings == ()


@pytest.mark.parametrize("name", NAMES)
def test_bundled_models_take_pictures_and_give_detections(name):
    description = open_model(name).description
    assert description.image is not None
    assert description.task is not None
    assert len(description.task.labels) == {"detector": 80, "faces": 1}[name]


@pytest.mark.parametrize("name", NAMES)
def test_graphs_are_plain_and_start_with_a_cast_of_the_picture(name):
    graph = onnx.load(MODELS / name / "1" / "model.onnx").graph
    (first,) = [node for node in graph.node if graph.input[0].name in node.input]
    assert first.op_type == "Cast"
    assert {node.op_type for node in graph.node} <= PLAIN_OPERATORS
    assert {node.domain for node in graph.node} == {""}
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"

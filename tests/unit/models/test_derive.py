"""Parameters from a model's file: written ones go first, and derived ones can be written out and read again."""

from dataclasses import replace

import pytest

from forebay.wire.model_config_pb2 import ModelConfig
from forebay_server.engines.onnx_specs import NodeInfo
from forebay_server.service.models.check import check_repositories
from forebay_server.service.models.config import describe
from forebay_server.service.models.derive.metadata import Hints
from forebay_server.service.models.derive.parameters import derive_parameters
from forebay_server.service.models.dry_run import config_text, dry_run
from forebay_server.service.models.parameters import read_parameters
from forebay_server.service.models.repository import Repository
from tests.support import exported, models

PICTURE = NodeInfo("images", "tensor(float)", (1, 3, 480, 640))
OPEN = NodeInfo("images", "tensor(float16)", ("batch", 3, "height", "width"))
ROW = [32, 32, 16, 8, 0.1, 0.9]


def derived(hints, picture=PICTURE, labels_file=None, **written):
    config = ModelConfig()
    for key, value in written.items():
        config.parameters[key].string_value = value
    return derive_parameters(read_parameters(config, "m/config.pbtxt"), hints, [picture], labels_file)


@pytest.mark.parametrize(
    ("hints", "values"),
    [
        ({"task": "detection"}, {"task": "detection", "resize": "letterbox"}),
        ({}, {"task": "detection", "resize": "letterbox"}),
        (
            {"task": "pose", "keypoint_shape": (17, 3)},
            {"task": "pose", "resize": "letterbox", "keypoint_shape": "17x3"},
        ),
        ({"is_end_to_end": True}, {"task": "detection", "resize": "letterbox", "head": "end_to_end"}),
        ({"exporter_head": "RTDETRDecoder"}, {"task": "detection", "head": "rt_detr"}),
        ({"image_size": (320, 240)}, {"task": "detection", "resize": "letterbox"}),
    ],
)
def test_a_yolo_file_gives_all_parameters_of_its_task(hints, values):
    found = derived(Hints(is_yolo=True, **hints))
    assert found.values == {"scale": "1/255", "color_order": "RGB", **values}
    assert set(found.sources.values()) == {"the file's metadata"}


CLASSIFIER = Hints(is_yolo=True, task="classification")
WIDE = NodeInfo("images", "tensor(float)", (1, 3, 160, 224))
SQUARE = NodeInfo("images", "tensor(float)", (1, 3, 224, 224))
CUT, STRETCHED = {"resize": "center_crop"}, {"resize": "stretch", "interpolation": "bilinear"}


@pytest.mark.parametrize(
    ("size", "picture", "written", "values"),
    [
        (None, SQUARE, {}, CUT),
        (None, WIDE, {}, STRETCHED),
        ((224, 224), OPEN, {}, CUT),
        ((224, 160), OPEN, {}, STRETCHED),
        ((224, 224), OPEN, {"image_size": "224x160"}, STRETCHED),
        (None, WIDE, {"resize": "stretch"}, {"interpolation": "bilinear"}),
        (None, WIDE, {"resize": "crop_pad"}, {}),
        (None, WIDE, {"resize_to": "256"}, CUT),
        (None, WIDE, {"interpolation": "opencv"}, {"resize": "stretch"}),
    ],
)
def test_pictures_of_a_classifier_are_cut_if_it_is_square_and_stretched_if_not(size, picture, written, values):
    found = derived(replace(CLASSIFIER, image_size=size), picture, **written).values
    assert {key: found[key] for key in ("resize", "interpolation") if key in found} == values
    assert (found["task"], found["activation"]) == ("classification", "none")


def test_a_size_is_needed_only_where_the_file_leaves_it_open():
    assert derived(Hints(is_yolo=True, image_size=(640, 480)), OPEN).values["image_size"] == "640x480"


def test_what_is_written_goes_first():
    found = derived(Hints(is_yolo=True, labels=("a",)), resize="stretch", labels="b", task="segmentation")
    assert not {"resize", "labels", "task"} & set(found.values)
    assert derived(Hints(is_yolo=True), task="tensors").values == {}


def test_labels_beside_the_model_go_before_those_in_it():
    found = derived(Hints(is_yolo=True, labels=("a",)), labels_file=("line\u2028one", "two"))
    assert found.values["labels"] == '["line\u2028one", "two"]'
    assert found.sources["labels"] == "labels.txt"
    assert derived(Hints(), labels_file=("a",)).values == {}


@pytest.mark.parametrize(
    "node", [NodeInfo("x", "tensor(float)", (1, 80)), NodeInfo("x", "tensor(int64)", (1, 3, 8, 8))]
)
def test_other_inputs_are_no_pictures(node):
    assert derived(Hints(is_yolo=True), node).values == {}


def entry_of(path):
    entry = Repository([path]).model(path.stem)
    return entry, 1, describe(entry)


def test_a_configuration_that_was_written_out_gives_the_same_model(tmp_path):
    path = exported.yolo(tmp_path / "best.onnx", [ROW])
    before = dry_run(*entry_of(path)).completed
    text = config_text(*entry_of(path))
    (tmp_path / "best.pbtxt").write_text(text)
    after = dry_run(*entry_of(path)).completed
    assert (after.task, after.image, after.is_folded) == (before.task, before.image, before.is_folded)
    assert after.derived == {}
    assert config_text(*entry_of(path)) == text


def test_a_check_says_where_each_parameter_comes_from(tmp_path):
    (report,) = check_repositories([exported.yolo(tmp_path / "best.onnx", [ROW])])
    assert "task: detection (the file's metadata)" in report.derived
    assert "head: yolo (names and shapes of the outputs)" in report.derived
    assert report.question == ""


def test_a_check_asks_for_what_cannot_be_derived(tmp_path):
    models.save(models.conv_net(), tmp_path / "net.onnx")
    (report,) = check_repositories([tmp_path / "net.onnx"])
    assert report.question.startswith("input ")
    assert "write the parameters scale (1/255 for a model that takes 0 to 1, 1 for 0 to 255)" in report.question
    assert report.question.endswith("in net.pbtxt")


def test_a_check_asks_for_the_number_of_rows_that_a_file_leaves_open(tmp_path):
    file = exported.objects(tmp_path / "net.onnx", [[0, 0, 8, 8], [8, 8, 16, 16]], side=16, few=2)
    file.with_suffix(".pbtxt").write_text(
        'parameters { key: "task" value { string_value: "detection" } }'
        'parameters { key: "scale" value { string_value: "1/255" } }'
    )
    (report,) = check_repositories([file])
    assert report.question.startswith("outputs 'boxes', 'scores', 'labels' have as many rows as objects were found")
    assert report.question.endswith("write the parameter output_rows, such as 300, in net.pbtxt")


def test_the_number_that_a_check_names_is_enough_for_all_rows_of_a_trial_run(tmp_path):
    boxes = [[0, 0, 8, 8]] * 700
    file = exported.objects(tmp_path / "net.onnx", boxes, side=16, few=650)
    file.with_suffix(".pbtxt").write_text(
        'parameters { key: "task" value { string_value: "detection" } }'
        'parameters { key: "scale" value { string_value: "1/255" } }'
    )
    (report,) = check_repositories([file])
    words = "write the parameter output_rows, such as 650 (as many as a trial run gave), in net.pbtxt"
    assert report.question.endswith(words)


def test_a_value_that_cannot_be_used_is_a_warning(tmp_path):
    path = exported.yolo(tmp_path / "best.onnx", [ROW], {**exported.METADATA, "names": "[" * 9})
    (report,) = check_repositories([path])
    assert any("the file's metadata 'names' is nested" in line for line in report.warnings)

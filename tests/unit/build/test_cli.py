"""`forebay engine` on small models: reports, exit codes, and one line for errors that a user can mend."""

import json

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from forebay_server.service.cli.engine import engine_app
from tests.support import models
from tests.unit.build.test_precision import SIZE, picture_net


@pytest.fixture
def source(tmp_path):
    return models.save(picture_net(), tmp_path / "model.onnx")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    random = np.random.default_rng(1)
    for index in range(6):
        cv2.imwrite(str(folder / f"{index}.png"), random.integers(0, 256, (SIZE * 2, SIZE * 2, 3)).astype(np.uint8))
    return folder


def invoke(*arguments):
    return CliRunner().invoke(engine_app, [str(each) for each in arguments])


def report(*arguments):
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_quantize_then_verify(source, folder, tmp_path):
    written = tmp_path / "int8.onnx"
    made = report("quantize", source, "--precision", "int8", "--calibration", folder, "-o", written)
    assert (made["calibration_frames"], made["target"]) == (6, "cpu")
    found = report("verify", written, "--reference", source, "--frames", folder, "--tolerance", "0.2")
    assert found["verdict"] == "agrees"
    assert found["frames"] == 6


def test_verify_ends_with_one_if_a_model_says_something_else(source, folder, tmp_path):
    other = models.save(picture_net(seed=6), tmp_path / "other.onnx")
    result = invoke("verify", other, "--reference", source, "--frames", folder)
    assert result.exit_code == 1
    assert "does not agree" in result.stdout


def test_fp16_needs_no_calibration_and_names_its_file(source):
    made = report("quantize", source, "--precision", "fp16", "--target", "tensorrt")
    assert made["model"].endswith("model.fp16.tensorrt.onnx")


def test_inspect_and_profile_report(source):
    assert report("inspect", source)["precision"] == "fp32"
    timed = report("profile", source, "--runs", 3, "--batch", 2)
    assert set(timed["stages_us"]) == {"h2d", "execute", "d2h"}
    assert timed["layers"]


@pytest.mark.parametrize("command", ["inspect", "profile"])
def test_reports_are_readable_without_json(source, command):
    result = invoke(command, source)
    assert result.exit_code == 0
    assert "Conv" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("inspect", "no.onnx"), 65, "no such file"),
        (("quantize", "MODEL", "--precision", "int8"), 65, "--calibration"),
        (("quantize", "MODEL", "--precision", "int8", "--calibration", "nowhere"), 65, "does not exist"),
        (("quantize", "MODEL", "--precision", "int4"), 65, "int4"),
        (("profile", "MODEL", "--batch", "99"), 65, "at most 8 rows"),
        (("profile", "MODEL", "--trace", "t.json"), 65, "torch models"),
        (("build", "MODEL", "--profiles", "3:2:1"), 65, "LEAST"),
        (("build", "MODEL", "--compatibility", "all"), 65, "ampere_plus"),
    ],
)
def test_what_a_user_can_mend_is_one_line_and_an_exit_code(source, arguments, code, complaint):
    result = invoke(*(str(source) if each == "MODEL" else each for each in arguments))
    assert result.exit_code == code
    assert complaint in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_empty_folder_is_no_calibration(source, tmp_path):
    (tmp_path / "empty").mkdir()
    result = invoke("quantize", source, "--precision", "int8", "--calibration", tmp_path / "empty")
    assert result.exit_code == 65


def test_a_model_that_takes_numbers_is_calibrated_as_it_is_served(folder, tmp_path):
    """Calibrated on 0 to 255, a model that takes 0 to 1 gives other classes."""
    path = models.save(models.conv_net(), tmp_path / "best.onnx")
    arguments = ("quantize", path, "--precision", "int8", "--calibration", folder, "-o", tmp_path / "int8.onnx")
    refused = invoke(*arguments)
    assert refused.exit_code == 65
    assert "nothing says how pixels become those: write scale, mean and std" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    (tmp_path / "best.pbtxt").write_text('parameters { key: "scale" value { string_value: "1/255" } }')
    report(*arguments)
    found = report("verify", tmp_path / "int8.onnx", "--reference", path, "--frames", folder, "--tolerance", "0.2")
    assert found["verdict"] == "agrees"
    assert "likely cause" not in found


def test_verify_names_the_likely_cause(source, folder, tmp_path):
    other = models.save(picture_net(seed=6), tmp_path / "other.onnx")
    result = invoke("verify", other, "--reference", source, "--frames", folder, "--json")
    assert "lower precision" in json.loads(result.stdout)["likely cause"]


def test_an_exporters_metadata_says_how_frames_are_made(folder, tmp_path):
    model = models.conv_net()
    names = str({number: f"class {number}" for number in range(10)})
    for key, value in {"task": "classify", "imgsz": "[16, 16]", "names": names, "stride": "1"}.items():
        model.metadata_props.add(key=key, value=value)
    path = models.save(model, tmp_path / "best.onnx")
    written = tmp_path / "int8.onnx"
    report("quantize", path, "--precision", "int8", "--calibration", folder, "-o", written)

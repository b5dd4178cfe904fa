"""The hint after a file that is not there."""

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from forebay.near_files import near_file
from forebay_server.service.cli.commands import app


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in (
        "best.onnx",
        "best.engine",
        "best.txt",
        "last.onnx",
        "Street.mp4",
        "notes.txt",
        ".best.onnx.swp",
        "models/detector/1/model.onnx",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("missing", "hint"),
    [
        ("bets.onnx", "; did you mean best.onnx?"),
        ("best.pt", "; did you mean best.onnx?"),
        ("best", "; did you mean best.onnx?"),
        ("best.engine", "; did you mean best.onnx?"),  # it is there, of another kind
        ("./street.MP4", "; did you mean Street.mp4?"),
        ("models/detectr", "; did you mean models/detector?"),
        (
            "models/detectr/1/model.onnx",
            "; there is no folder models/detectr; did you mean models/detector/1/model.onnx?",
        ),
        ("nets/1/model.onnx", "; there is no folder nets"),
        ("yolo11.onnx", "; in HERE: best.onnx, last.onnx"),
        ("models/yolo11.onnx", ""),
        ("x" * 300, "; in HERE: best.onnx, last.onnx"),
        ("", ""),
    ],
)
def test_the_likely_file_is_named(folder, missing, hint):
    assert near_file(missing, (".onnx", ".pt")) == hint.replace("HERE", str(folder))


def test_without_a_kind_only_a_likely_name_is_said(folder):
    assert near_file(folder / "yolo11.onnx") == ""
    assert near_file(folder / "lasd.onnx") == f"; did you mean {folder}/last.onnx?"


def test_of_many_files_some_are_named(tmp_path):
    for number in range(5):
        (tmp_path / f"{number}.onnx").write_text("")
    assert near_file(tmp_path / "zzzzzz", {".onnx"}) == f"; in {tmp_path}: 0.onnx, 1.onnx, 2.onnx and 2 more"


def test_a_file_in_place_of_a_folder_is_no_crash(tmp_path):
    (tmp_path / "file").write_text("")
    assert near_file(tmp_path / "file" / "x.onnx", {".onnx"}) in {"", f"; there is no folder {tmp_path}/file"}
    assert near_file(Path("/"), {".onnx"}) == ""


def test_commands_that_read_a_file_say_the_likely_one(tmp_path, monkeypatch):
    for name in ("GRPC_EXPERIMENTS", "GRPC_VERBOSITY"):  # that `load` sets for its process
        monkeypatch.setenv(name, os.environ.get(name, ""))
    for name in ("forebay.toml", "before.json", "trace.csv"):
        (tmp_path / name).write_text("")
    for words, meant in (
        (["serve", "--config", "forbay.toml"], "forebay.toml"),
        (["load", "compare", "beforr.json", "before.json"], "before.json"),
        (["load", "--trace", "trase.csv"], "trace.csv"),
        (["load", "--frames", "trace"], "trace.csv"),
    ):
        given = [str(tmp_path / word) if "." in word or word == "trace" else word for word in words]
        result = CliRunner().invoke(app, given)
        assert result.exit_code == 2, result.output
        assert f"; did you mean {tmp_path}/{meant}?" in result.stderr

"""Every option that names a file to write: a place where none can be is one line and the code, before the work."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from forebay_server.loadtest.places import place_fault
from forebay_server.service.cli import exit_codes
from forebay_server.service.cli.commands import app
from tests.support.guard import HANG_GUARD_S
from tests.support.repository import ROOT

CLIP = ROOT / "models" / "pedestrians.mp4"
FACES = next((ROOT / "models" / "faces").glob("*/model.onnx"))
NOBODY = "127.0.0.1:1"  # nothing listens there: a command that connects first says so
WRITERS = {
    "stream": (["stream", str(CLIP), "--address", NOBODY, "--output"], exit_codes.CANNOT_WRITE, ".mp4"),
    "trace": (["trace", "--admin-address", NOBODY, "--output"], exit_codes.CANNOT_WRITE, ".json"),
    "serve": (["serve", "--address", "127.0.0.1:0", "--ready-file"], exit_codes.CANNOT_WRITE, ".json"),
    "plan --save": (["plan", "detector", "--save"], exit_codes.USAGE, ".json"),
    "plan --chart": (["plan", "detector", "--chart"], exit_codes.USAGE, ".svg"),
    "load --json": (["load", "--address", NOBODY, "--json"], exit_codes.USAGE, ".json"),
    "load --html": (["load", "--address", NOBODY, "--html"], exit_codes.USAGE, ".html"),
    "load --markdown": (["load", "--address", NOBODY, "--markdown"], exit_codes.USAGE, ".md"),
    "load --hgrm": (["load", "--address", NOBODY, "--hgrm"], exit_codes.USAGE, ".hgrm"),
    "load search": (["load", "search", "--address", NOBODY, "--json"], exit_codes.USAGE, ".json"),
    "load compare": (["load", "compare", "a", "b", "--json"], exit_codes.USAGE, ".json"),
}
FOLDERS_ARE_MADE = {
    "quantize": ["engine", "quantize", str(FACES), "--precision", "fp16", "--output"],
    "build": ["engine", "build", str(FACES), "--output"],
    "build --timing-cache": ["engine", "build", str(FACES), "--timing-cache"],
    "profile": ["engine", "profile", str(FACES), "--trace"],
    "demo": ["demo", "--address", NOBODY, "--out"],
    "bench": ["bench", "batching", "--plots"],
}


@pytest.fixture
def command(monkeypatch):
    """Run a command; the settings of the process that some make are put back."""
    for name in ("GRPC_EXPERIMENTS", "GRPC_VERBOSITY"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    return lambda *words: CliRunner().invoke(app, list(map(str, words)))


def assert_one_line(result, code, *parts):
    assert result.exit_code == code, result.output
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""
    for part in parts:
        assert str(part) in result.stderr


@pytest.mark.parametrize("writer", WRITERS)
def test_a_missing_folder_and_a_folder_in_place_of_a_file_are_found_first(command, tmp_path, writer):
    words, code, suffix = WRITERS[writer]
    nowhere = tmp_path / "no where" / f"x{suffix}"
    assert_one_line(command(*words, nowhere), code, nowhere, f"mkdir -p '{nowhere.parent}'")
    folder = tmp_path / f"folder{suffix}"
    folder.mkdir()
    assert_one_line(command(*words, folder), code, folder, "it is a folder")
    assert list(tmp_path.rglob("*")) == [folder]


@pytest.mark.parametrize("writer", FOLDERS_ARE_MADE)
def test_a_file_in_place_of_a_folder_is_found_first(command, tmp_path, writer):
    (tmp_path / "file").write_text("")
    inside = tmp_path / "file" / "more" / {"quantize": "x.onnx", "build": "x.plan"}.get(writer, "x")
    code = exit_codes.USAGE if writer == "bench" else exit_codes.CANNOT_WRITE
    assert_one_line(command(*FOLDERS_ARE_MADE[writer], inside), code, inside, "is a file, not a folder")


def test_a_clip_is_not_written_over_its_source(command, tmp_path):
    source = tmp_path / "a.mp4"
    source.write_bytes(CLIP.read_bytes())
    (tmp_path / "b.mp4").symlink_to(source)
    for output in (source, tmp_path / "b.mp4"):
        result = command("stream", source, "--address", NOBODY, "--output", output)
        assert_one_line(result, exit_codes.USAGE, "is a source itself")
    assert source.read_bytes() == CLIP.read_bytes()


def test_a_model_is_not_written_over_itself_nor_under_a_name_of_another_kind(command, tmp_path):
    model = tmp_path / "best.onnx"
    model.write_bytes(FACES.read_bytes())
    quantize = ["engine", "quantize", model, "--precision", "fp16", "--output"]
    assert_one_line(command(*quantize, model), exit_codes.MODEL, "is the model itself")
    assert_one_line(command(*quantize, tmp_path / "half.plan"), exit_codes.MODEL, "must end in .onnx")
    assert_one_line(command("engine", "build", model, "--output", model), exit_codes.MODEL, "must end in .plan")
    assert model.read_bytes() == FACES.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["best.onnx"]


def test_two_reports_have_two_files(command, tmp_path):
    both = tmp_path / "report"
    assert_one_line(command("load", "--json", both, "--html", both), exit_codes.USAGE, "two reports have the same file")


def test_places_that_can_be_written_have_no_fault_and_nothing_appears(tmp_path):
    old = tmp_path / "old"
    old.write_text("kept")
    assert place_fault(old) == place_fault(tmp_path / "new") == ""
    assert place_fault(tmp_path / "a" / "b" / "new", makes_folders=True) == ""
    assert place_fault(Path("/dev/stdout")) == place_fault(Path("new")) == ""
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert old.read_text() == "kept"


def test_a_name_that_no_file_system_takes_is_a_fault(tmp_path):
    assert "File name too long" in place_fault(tmp_path / ("x" * 300))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_places_without_the_right_to_write_are_a_fault(tmp_path):
    old = tmp_path / "old"
    old.write_text("")
    old.chmod(0o400)
    assert "this user may not change it" in place_fault(old)
    assert place_fault(old, is_replaced=True) == ""
    tmp_path.chmod(0o500)
    for fault in (place_fault(old, is_replaced=True), place_fault(tmp_path / "a" / "new", makes_folders=True)):
        assert f"this user may not make files in {tmp_path}" in fault


@pytest.mark.parametrize("program", ["bench", "bench.scaling", "bench.cameras"])
def test_the_benchmarks_do_not_run_for_a_file_that_cannot_be_written(program, tmp_path):
    command = [sys.executable, "-m", f"forebay_server.{program}", "--json", tmp_path / "none" / "x.json"]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=HANG_GUARD_S, cwd=ROOT)
    assert (ended.returncode, ended.stdout) == (exit_codes.USAGE, "")
    assert f"there is no folder {tmp_path}/none; make it with: mkdir -p" in ended.stderr

"""Files that commands cannot write, for want of a folder or of space: one line that names the file, and a code."""

import resource

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from forebay import Box, Detection
from forebay_server.loadtest.errors import CannotWriteError as ReportError
from forebay_server.loadtest.errors import ExitCode
from forebay_server.loadtest.output import write_json
from forebay_server.service.cli import exit_codes
from forebay_server.service.cli.clip_writer import CannotWriteError, ClipWriter
from forebay_server.service.cli.commands import app
from forebay_server.service.cli.drawing import draw_picture
from tests.support.repository import ROOT

FACES = next((ROOT / "models" / "faces").glob("*/model.onnx"))
CLIP = ROOT / "models" / "pedestrians.mp4"
NOISE = np.random.default_rng(1).integers(0, 256, (240, 320, 3), np.uint8)


@pytest.fixture
def full_disk():
    """Files of this process cannot grow beyond a kilobyte."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def write_clip(path, frames):
    with ClipWriter(path, 10) as writer:
        for _ in range(frames):
            writer.write(NOISE)


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
def test_a_clip_on_a_full_disk_is_an_error(tmp_path, full_disk, suffix):
    path = tmp_path / f"clip{suffix}"
    with pytest.raises(CannotWriteError, match=path.name):
        write_clip(path, 10)


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
def test_a_clip_that_is_written_is_none(tmp_path, suffix):
    path = tmp_path / f"clip{suffix}"
    write_clip(path, 1)
    assert cv2.VideoCapture(str(path)).read()[0]


def test_a_clip_without_a_folder_says_so(tmp_path):
    with pytest.raises(CannotWriteError, match=r"cannot write .*clip\.mp4: No such file or directory"):
        write_clip(tmp_path / "nowhere" / "clip.mp4", 1)


def test_a_picture_without_a_folder_is_an_error(tmp_path):
    box = Box(0.1, 0.1, 0.5, 0.5)
    found = {0: [Detection("person", 0, 0.9, box, box)]}
    with pytest.raises(CannotWriteError, match=r"demo\.png"):
        draw_picture(tmp_path / "nowhere" / "demo.png", str(CLIP), [("camera", found)])


def test_a_report_on_a_full_disk_is_an_error_with_the_code(tmp_path, full_disk):
    with pytest.raises(ReportError, match=r"cannot write .*report\.json") as found:
        write_json(str(tmp_path / "report.json"), {"text": "-" * 10_000}, "")
    assert found.value.exit_code == ExitCode.CANNOT_WRITE == exit_codes.CANNOT_WRITE


def test_a_model_without_a_folder_is_one_line_and_the_code(tmp_path):
    (tmp_path / "file").write_text("")
    output = tmp_path / "file" / "out.onnx"
    result = CliRunner().invoke(app, ["engine", "quantize", str(FACES), "--precision", "fp16", "--output", str(output)])
    assert result.exit_code == exit_codes.CANNOT_WRITE, result.output
    assert result.stderr.startswith("forebay: cannot write ")
    assert len(result.stderr.splitlines()) == 1

"""docs/own-models.md: its commands run as written, on files of the shapes that its exporters write.

The exporters themselves are not installed here, so that each block for them is replaced by a file made by hand. Every
`forebay` command of the page is a process of its own.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.support import exported
from tests.support.repository import ROOT
from tests.unit.cli.test_video import write_clip

PAGE = ROOT / "docs" / "own-models.md"
BLOCK = re.compile(r"^```(?P<kind>\S+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
MOST_S = 120  # of one command
LABELS = (ROOT / "models" / "detector" / "labels.txt").read_text().splitlines()
YOLO_METADATA = {
    **exported.METADATA,
    "names": repr(dict(enumerate(LABELS))),
    "imgsz": "[640, 640]",
}


def write_yolo(folder):
    scores = [0.0] * len(LABELS)
    scores[0] = 0.9
    rows = [[320, 320, 64, 128, *scores]]
    exported.yolo(folder / "yolo11n.onnx", rows, YOLO_METADATA, sides=(640, 640), anchor_count=8400)


def write_resnet(folder):
    logits = np.zeros(1000, np.float32)
    logits[[7, 3, 1, 4, 9]] = [10, 9, 8, 7, 6]
    exported.constant(folder / "resnet18.onnx", {"scores": logits}, 224)
    (folder / "resnet18.labels.txt").write_text("\n".join(f"class {number}" for number in range(1000)))


def write_ssdlite(folder):
    exported.objects(folder / "ssdlite.onnx", [[80, 80, 240, 240], [0, 0, 80, 80]], side=320, few=1)
    names = ["__background__", *LABELS]
    (folder / "ssdlite.labels.txt").write_text("\n".join(names))


def write_detr(folder):
    logits = np.zeros((100, 92), np.float32)
    logits[:, -1] = 10  # no object
    logits[5, [1, 91]] = [12, 0]
    boxes = np.full((100, 4), 0.5, np.float32)
    exported.constant(folder / "detr.onnx", {"logits": logits, "pred_boxes": boxes}, 800, "pixel_values")
    names = ["N/A", *LABELS]
    names += [f"more {number}" for number in range(91 - len(names))]
    (folder / "detr.labels.txt").write_text("\n".join(names))


def blocks_of(heading):
    """Kind and text of each block of a section of the page."""
    section = PAGE.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [(match["kind"], match["text"]) for match in BLOCK.finditer(section)]


class Terminal:
    """Runs the commands of one section in a folder, and its server beside them."""

    def __init__(self, folder):
        self.folder = folder
        self.outputs = []  # of each command but `serve`
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._environment = {
            **os.environ,
            "PATH": path,
            "FOREBAY_ADDRESS": "127.0.0.1:0",
            "FOREBAY_UDS": str(folder / "server"),
            "FOREBAY_FRONT_ENDS": "0",
            "FOREBAY_CACHE_FOLDER": str(folder / "cache"),
        }
        self._servers = contextlib.ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._servers.close()

    def run(self, line):
        if line.startswith("forebay serve"):
            self._servers.close()
            self._servers.enter_context(self._serving(line))
            return
        done = subprocess.run(
            ["/bin/sh", "-c", line],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=MOST_S,
            check=False,
        )
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        self.outputs.append(done.stdout)

    @contextlib.contextmanager
    def _serving(self, line):
        server = subprocess.Popen(
            line.split(), cwd=self.folder, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        try:
            assert any(b'"event": "ready"' in each for each in server.stdout), "the server ended before it was ready"
            yield
            server.send_signal(signal.SIGTERM)
            assert server.wait(MOST_S) == 0
        finally:
            server.kill()
            server.stdout.close()
            server.wait()


def prepare(folder):
    """The files that stand for the reader's own."""
    write_clip(folder / "clip.avi").rename(folder / "street.mp4")
    (folder / "pictures").mkdir()
    for number, size in enumerate(((90, 160), (120, 120))):
        cv2.imwrite(str(folder / "pictures" / f"{number}.png"), np.full((*size, 3), 255, np.uint8))


def follow(heading, folder, write):
    """Run the section; return the terminal, whose outputs are those of its commands."""
    prepare(folder)
    with Terminal(folder) as terminal:
        for kind, text in blocks_of(heading):
            if kind in {"exporter", "python"}:
                write(folder)
            elif kind == "sh":
                for line in text.splitlines():
                    terminal.run(line)
            elif kind == "output":
                assert terminal.outputs[-1] == text
            else:
                (folder / kind).write_text(text)
    return terminal


def results(output):
    lines = [json.loads(line) for line in output.splitlines()]
    assert {line["status"] for line in lines} == {"ok"}
    return lines


def test_from_yolo_to_boxes(tmp_path):
    _, video, pictures, _, _, check = follow("From YOLO to boxes", tmp_path, write_yolo).outputs
    clip = cv2.VideoCapture(str(tmp_path / "boxes.mp4"))
    assert clip.get(cv2.CAP_PROP_FRAME_COUNT) == len(results(video))
    clip.release()
    wide, square = results(pictures)
    (found,) = wide["detections"]
    assert (found["label"], found["class_id"]) == ("person", 0)
    box = found["box_pixels"]  # letterboxed: 160x90 to 640x360
    assert [box["x_min"], box["y_min"], box["x_max"], box["y_max"]] == pytest.approx([72, 29, 88, 61], abs=0.01)
    assert len(square["detections"]) == 1
    assert "derived" not in check  # all of it is written now


def test_from_torchvision_to_top_5(tmp_path):
    *_, pictures = follow("From torchvision to top 5", tmp_path, write_resnet).outputs
    for line in results(pictures):
        assert [found["label"] for found in line["classes"]] == [f"class {number}" for number in (7, 3, 1, 4, 9)]
        assert sum(found["score"] for found in line["classes"]) == pytest.approx(0.97, abs=0.03)


def test_from_a_torchvision_detector(tmp_path):
    _, _, video = follow("From a torchvision detector", tmp_path, write_ssdlite).outputs
    for line in results(video):
        found = line["detections"][0]
        assert (found["label"], found["class_id"]) == ("person", 1)
        box = found["box"]
        assert [box["x_min"], box["y_min"], box["x_max"], box["y_max"]] == pytest.approx([0.25, 0.25, 0.75, 0.75])


def test_from_detr(tmp_path):
    _, video = follow("From DETR", tmp_path, write_detr).outputs
    for line in results(video):
        (found,) = line["detections"]
        assert (found["label"], found["class_id"]) == ("person", 1)
        box = found["box"]
        assert [box["x_min"], box["y_min"], box["x_max"], box["y_max"]] == pytest.approx([0.25, 0.25, 0.75, 0.75])

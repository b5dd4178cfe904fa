"""The examples run, against a scripted server."""

import importlib.util
import json

import cv2
import grpc
import numpy as np
import pytest

from forebay.wire import frames_pb2 as wire
from tests.support.repository import ROOT
from tests.support.scripted_server import ScriptedServerThread
from tests.unit.cli.test_video import write_clip


def example(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def sees_a_person(call):
    await call.accept()
    while (frame := await call.read()) is not None:
        await call.answer(frame, detections=[wire.Detection(label="person", score=0.75)])


@pytest.fixture
def server():
    with ScriptedServerThread(sees_a_person) as running:
        yield running


def test_webcam(server, tmp_path, capsys):
    clip = write_clip(tmp_path / "a.avi")
    example("webcam").main(["--device", str(clip), "--server", server.address])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert lines[-1].startswith("frame 10: person 0.75 (")


def test_rtsp_opens_its_camera_again(server, tmp_path, capsys):
    clip = write_clip(tmp_path / "a.avi")

    module = example("rtsp")
    opened = iter([str(clip), str(clip), "/nowhere", "/nowhere"])
    real = cv2.VideoCapture
    module.cv2 = type("cv2", (), {"VideoCapture": staticmethod(lambda _url: real(next(opened)))})
    module.main(["rtsp://camera", "--server", server.address, "--tries", "2", "--pause", "0"])
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("frame 20: 1 people") for line in lines)
    assert "the camera is away (2 of 2 tries failed)" in lines


async def sees_a_shape(call):
    await call.accept()
    points = [wire.Keypoint(x=1, y=2, score=score) for score in (0.9, 0.1)]
    mask = wire.Mask(polygons=[wire.Polygon(points=[0, 0, 4, 0, 4, 4])])
    found = wire.Detection(label="person", score=0.75, keypoints=points, mask=mask)
    while (frame := await call.read()) is not None:
        await call.answer(frame, detections=[found])


def test_picture_says_all_that_was_found(tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    with ScriptedServerThread(sees_a_shape) as server:
        example("picture").main([str(tmp_path / "a.png"), "--server", server.address])
    assert (server.calls[0].open.encoding, server.calls[0].open.masks) == (wire.ENCODING_PNG, wire.MASK_FORMAT_POLYGONS)
    assert capsys.readouterr().out.splitlines() == [
        "ok",
        "person 0.75 at (0, 0, 0, 0), 1 keypoints, outline of 3 points",
    ]


def test_folder_answers_every_file(server, tmp_path, capsys):
    for name in ("b.jpg", "a.jpg"):
        cv2.imwrite(str(tmp_path / name), np.zeros((8, 8, 3), np.uint8))
    example("folder").main([str(tmp_path), "--server", server.address])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["file"] for line in lines] == ["a.jpg", "b.jpg"]
    assert lines[0]["found"] == [{"label": "person", "score": 0.75}]


async def is_not_there(call):
    await call.abort(grpc.StatusCode.NOT_FOUND, "no model 'detector' here")


def test_an_error_is_one_line(tmp_path):
    cv2.imwrite(str(tmp_path / "a.jpg"), np.zeros((8, 8, 3), np.uint8))
    with ScriptedServerThread(is_not_there) as server:
        for name, path in (("folder", tmp_path), ("picture", tmp_path / "a.jpg")):
            with pytest.raises(SystemExit, match="NOT_FOUND: no model 'detector' here"):
                example(name).main([str(path), "--server", server.address])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["folder", "EMPTY"], "has no .jpg or .jpeg files"),
        (["picture", "EMPTY/a.png"], "No such file or directory"),
        (["webcam", "--device", "EMPTY/a.avi"], "cannot be opened"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_source_that_is_not_there_is_one_line(tmp_path, words, expected):
    name, *arguments = [word.replace("EMPTY", str(tmp_path)) for word in words]
    with pytest.raises(SystemExit, match=expected):
        example(name).main([*arguments, "--server", "127.0.0.1:1"])


def test_ros_like_callback(server, capsys):
    example("ros_like_callback").main(["--server", server.address, "--images", "3", "--fps", "1000"])
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert all("1 objects" in line for line in lines)
    assert server.calls[0].frames[0].capture_time_us > 1_600_000_000_000_000

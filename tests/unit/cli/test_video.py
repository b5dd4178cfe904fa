"""Sources of frames: their frames, and their messages when there are none."""

import socket
import struct
import sys

import cv2
import numpy as np
import pytest

from forebay_server.service.cli import video
from forebay_server.service.cli.video import SourceError, open_source

SIZE = (64, 48)


def write_clip(path, frames=10, size=SIZE):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, size)
    for number in range(frames):
        writer.write(np.full((size[1], size[0], 3), number * 20 % 256, np.uint8))
    writer.release()
    return path


def lie_about_length(path, frames):
    """Change the number of frames that an AVI's headers declare."""
    data = bytearray(path.read_bytes())
    for tag, offset in ((b"avih", 24), (b"strh", 40)):
        place = data.index(tag) + offset
        data[place : place + 4] = struct.pack("<I", frames)
    path.write_bytes(data)


def test_clip_gives_its_frames_and_ends(tmp_path):
    with open_source(str(write_clip(tmp_path / "a.avi"))) as source:
        assert [round(float(picture.mean()), -1) for picture in source] == [20 * number for number in range(10)]
        assert source.read() is None
        assert (source.info.declared_frames, source.info.fps, source.info.is_live) == (10, 10.0, False)
        assert source.shortfall == ""


def test_what_the_file_system_refuses_is_told_in_its_words(tmp_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "clip.mp4"))
        with pytest.raises(SourceError, match=r"clip\.mp4 cannot be read: No such device or address"):
            open_source(str(tmp_path / "clip.mp4"))
    with pytest.raises(SourceError, match="cannot be read: File name too long"):
        open_source("a" * 300)


def test_clip_that_lies_about_its_length_is_told_after_its_end(tmp_path):
    path = write_clip(tmp_path / "lies.avi", frames=7)
    lie_about_length(path, 44)
    with open_source(str(path)) as source:
        assert len(list(source)) == 7
        assert source.shortfall == "lies.avi declares 44 frames, but ends after 7: cut short or damaged"


def test_clip_that_stops_in_the_middle_gives_what_is_there(tmp_path):
    path = write_clip(tmp_path / "cut.avi", frames=20, size=(640, 480))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with open_source(str(path)) as source:
        assert 0 < len(list(source)) < 20
        assert "cut short" in source.shortfall


def test_a_model_in_place_of_a_video_is_answered_with_the_command_for_it(tmp_path):
    path = tmp_path / "best.onnx"
    path.write_bytes(b"")
    with pytest.raises(SourceError, match=f"{path} is a model file, no video: serve it with `forebay serve {path}`"):
        open_source(str(path))


def test_estimate_of_the_length_may_be_a_little_off(tmp_path):
    path = write_clip(tmp_path / "a.avi", frames=20)
    lie_about_length(path, 21)
    with open_source(str(path)) as source:
        list(source)
        assert source.shortfall == ""


@pytest.mark.parametrize("content", [b"", b"not a video"])
def test_file_that_is_no_video_is_refused(tmp_path, content):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(SourceError, match=r"a\.mp4 is not a video that OpenCV"):
        open_source(str(tmp_path / "a.mp4"))


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(SourceError, match="does not exist"):
        open_source(str(tmp_path / "a.mp4"))


def test_device_that_is_not_there_is_refused():
    with pytest.raises(SourceError, match="device 97 cannot be opened"):
        open_source("97")


def test_password_of_a_camera_is_not_shown():
    with pytest.raises(SourceError, match=r"rtsp://127\.0\.0\.1:1/x cannot be opened") as caught:
        open_source("rtsp://user:secret@127.0.0.1:1/x?token=secret")
    assert "secret" not in str(caught.value)


def test_folder_gives_its_pictures_by_name_and_tells_what_it_skipped(tmp_path):
    for name, level in (("b.png", 100), ("a.png", 50)):
        cv2.imwrite(str(tmp_path / name), np.full((4, 6, 3), level, np.uint8))
    (tmp_path / "broken.jpg").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("no picture")
    with open_source(str(tmp_path)) as source:
        assert [picture[0, 0, 0] for picture in source] == [50, 100]
        assert source.skipped == ["broken.jpg is not a picture that can be read"]
        assert source.has_mixed_sizes


def test_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(SourceError, match="no pictures in"):
        open_source(str(tmp_path))


def test_without_pyav_its_name_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "a.mp4").write_bytes(b"x")
    with pytest.raises(SourceError, match="PyAV is tried, too"):
        open_source(str(tmp_path / "a.mp4"))


def test_live_sources_have_no_length():
    info = video.SourceInfo("camera", is_live=True, fps=25, declared_frames=100)
    assert video.Source(info).shortfall == ""

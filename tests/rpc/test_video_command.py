"""`forebay stream` sends the packets of a video as they are, and decodes them where the server cannot."""

import itertools
import json
import struct
import threading
from collections import Counter

import av
import cv2
import grpc
import numpy as np
import pytest
from typer.testing import CliRunner

from forebay import Status
from forebay.client.clock import MonotonicClock
from forebay.wire import frames_pb2 as wire
from forebay_server.bench.rtsp_camera import RtspCamera
from forebay_server.service.cli import exit_codes, packets, reopening
from forebay_server.service.cli.commands import app
from forebay_server.service.cli.stream_camera import CameraRun
from forebay_server.service.cli.stream_plan import CameraPlan
from forebay_server.service.cli.stream_server import StreamServer
from forebay_server.service.frontend.frames.video.access_unit import UnitReader
from tests.support.guard import HANG_GUARD_S
from tests.support.loops import on_loop
from tests.support.scripted_server import ScriptedServerThread, answers
from tests.support.videos import ENCODERS, clip, levels

FRAMES = 8
ENCODINGS = {"h264": wire.ENCODING_H264, "hevc": wire.ENCODING_H265}


def write(path, codec="h264", *, bframes=0, turn=0):
    """A clip in a container, which stores lengths instead of start codes."""
    with av.open(str(path), "w") as container:
        track = container.add_stream(ENCODERS[codec], rate=25)
        track.width = track.height = 64
        track.pix_fmt, track.thread_count = "yuv420p", 1
        track.codec_context.max_b_frames = bframes
        own = {"x265-params": "log-level=none:pools=none"} if codec == "hevc" else {}
        track.options = {"preset": "ultrafast", **own}
        for picture in levels(FRAMES):
            for packet in track.encode(av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="yuv420p")):
                container.mux(packet)
        for packet in track.encode(None):
            container.mux(packet)
    if turn:
        data = bytearray(path.read_bytes())
        at = data.index(b"tkhd") + 4 + 40  # the matrix of the track, version 0
        data[at : at + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
        path.write_bytes(data)
    return path


async def decodes_no_video(call):
    if call.index == 0:
        await call.abort(grpc.StatusCode.UNIMPLEMENTED, "no decoder")
    await call.accept()
    await call.echo()


def stream(path, script=answers, *arguments):
    """The calls that a server got, and the command's result."""
    with ScriptedServerThread(script) as server:
        result = CliRunner().invoke(app, ["stream", str(path), "--address", server.address, *arguments])
    return server.calls, result


@pytest.mark.parametrize(("codec", "name"), [("h264", "a.mp4"), ("h264", "a.mkv"), ("hevc", "a.mp4")])
def test_the_packets_of_a_file_are_sent_in_annex_b_form(tmp_path, codec, name):
    path = write(tmp_path / name, codec, bframes=2)
    (call,), result = stream(path)
    assert result.exit_code == exit_codes.OK, result.output
    assert call.open.encoding == ENCODINGS[codec]
    payloads = [frame.payload for frame in call.frames]
    assert all(payload.startswith((b"\x00\x00\x00\x01", b"\x00\x00\x01")) for payload in payloads)
    assert len(payloads) == FRAMES
    reader = UnitReader(codec)
    reader.read_sets(call.open.parameter_sets)
    assert [reader.read(payload).is_keyframe for payload in payloads] == [True] + [False] * (FRAMES - 1)
    assert [json.loads(line)["status"] for line in result.stdout.splitlines()] == ["ok"] * FRAMES


def test_a_server_without_a_decoder_gets_pictures(tmp_path):
    path = write(tmp_path / "a.mp4")
    calls, result = stream(path, decodes_no_video)
    assert result.exit_code == exit_codes.OK, result.output
    assert [call.open and call.open.encoding for call in calls] == [None, wire.ENCODING_BGR8]
    assert len(calls[1].frames) == FRAMES
    (_,), result = stream(path, decodes_no_video, "--transcode", "never")
    assert result.exit_code == exit_codes.FAILED
    assert "no decoder" in result.stderr


def test_pictures_are_sent_where_they_are_asked_for(tmp_path):
    path = write(tmp_path / "a.mp4")
    for arguments in (["--transcode", "always"], ["--encoding", "bgr8"]):
        (call,), result = stream(path, answers, *arguments)
        assert result.exit_code == exit_codes.OK, result.output
        assert call.open.encoding == wire.ENCODING_BGR8
    for arguments in (["--transcode", "never", "--encoding", "jpeg"], ["--transcode", "perhaps"]):
        calls, result = stream(path, answers, *arguments)
        assert (calls, result.exit_code) == ([], exit_codes.USAGE)


def test_a_turned_video_is_decoded_here(tmp_path):
    path = write(tmp_path / "a.mp4", turn=90)
    (call,), _ = stream(path)
    assert call.open.encoding == wire.ENCODING_BGR8
    calls, result = stream(path, answers, "--transcode", "never")
    assert (calls, result.exit_code) == ([], exit_codes.NO_INPUT)
    assert "turned" in result.stderr


def test_motion_jpeg_is_sent_without_encoding_it_again(tmp_path):
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        track = container.add_stream("mjpeg", rate=25)
        track.width = track.height = 64
        track.pix_fmt = "yuvj420p"
        for picture in levels(3):
            for packet in track.encode(av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="yuvj420p")):
                container.mux(packet)
    (call,), result = stream(path)
    assert result.exit_code == exit_codes.OK, result.output
    assert call.open.encoding == wire.ENCODING_JPEG
    assert [cv2.imdecode(np.frombuffer(frame.payload, np.uint8), 1).shape for frame in call.frames] == [(64, 64, 3)] * 3


def test_a_camera_that_is_not_there_ends_the_command_with_a_word():
    calls, result = stream("rtsp://127.0.0.1:9/none", answers)
    assert (calls, result.exit_code) == ([], exit_codes.NO_INPUT)
    assert "cannot be opened" in result.stderr


def test_a_camera_that_falls_silent_has_gone_away(monkeypatch):
    monkeypatch.setattr(packets, "SILENCE_TIMEOUT_S", 0.2)
    units = [unit.data for unit in clip(12, size=(320, 240), gop=6)]
    is_asked, frames = threading.Event(), itertools.count()
    with RtspCamera([units], lambda: next(frames) == 10 and is_asked.wait()) as camera:
        with packets.open_packets(camera.url) as source:
            assert 8 <= len(list(source)) <= 10  # FFmpeg may keep its last frames
        is_asked.set()
    assert next(frames) > 10  # the connection stood meanwhile


def test_a_camera_that_comes_back_goes_on_and_its_packets_are_passed_through():
    units = [unit.data for unit in clip(12, size=(320, 240), gop=6)]
    with RtspCamera([units, units]) as camera:
        calls, result = stream(camera.url, answers, "--limit", "20", "--delivery", "every")
    assert result.exit_code == exit_codes.OK, result.output
    (call,) = calls
    assert call.open.encoding == wire.ENCODING_H264
    reader = UnitReader("h264")
    reader.read_sets(call.open.parameter_sets)  # they came in the camera's description alone
    found = [reader.read(frame.payload) for frame in call.frames]
    assert len(found) == 20
    assert sum(unit.is_keyframe for unit in found) >= 3
    assert "went away" in result.stderr
    assert "is there again" in result.stderr
    assert camera.played >= 1


def test_a_camera_that_comes_back_with_another_video_gets_a_new_stream():
    small = [unit.data for unit in clip(6, size=(320, 240), gop=6)]
    large = [unit.data for unit in clip(12, size=(640, 480), gop=6)]
    with RtspCamera([small, large]) as camera:
        calls, result = stream(camera.url, answers, "--limit", "12", "--delivery", "every")
    assert result.exit_code == exit_codes.OK, result.output
    sizes = []
    for call in calls:
        reader = UnitReader("h264")
        reader.read_sets(call.open.parameter_sets)
        found = [reader.read(frame.payload) for frame in call.frames]
        assert found[0].is_keyframe
        assert not any(unit.sequence is None for unit in found)
        sizes.append((found[0].sequence.width, len(found)))
    assert [width for width, _ in sizes] == [320, 640]
    assert sum(count for _, count in sizes) == 12
    assert [json.loads(line)["frame"] for line in result.stdout.splitlines()] == list(range(12))
    assert "sends another video than before (h264): opening a new stream" in result.stderr


def test_a_camera_that_stays_away_ends_the_command_with_a_word_and_a_code(monkeypatch):
    monkeypatch.setattr(reopening, "GIVE_UP_AFTER_S", 1.0)
    units = [unit.data for unit in clip(6)]
    with RtspCamera([units]) as camera:
        _, result = stream(camera.url, answers, "--delivery", "every")
    assert result.exit_code == exit_codes.INCOMPLETE
    assert "went away and did not come back within 1 s" in result.stderr
    assert len(result.stdout.splitlines()) >= 4  # of a live camera, FFmpeg may keep its last frames


@on_loop
async def test_a_camera_is_read_on_while_the_output_waits(monkeypatch):
    monkeypatch.setattr(reopening, "GIVE_UP_AFTER_S", 0.1)
    has_gone, shown = threading.Event(), []

    class Output:
        def show(self, camera, index, file, result):
            assert has_gone.wait(HANG_GUARD_S)
            shown.append((camera, index, file, result.seq, result.status))

    def say(line):
        if "went away; trying" in line:
            has_gone.set()

    units = [unit.data for unit in clip(24, size=(320, 240), gop=6)]
    with ScriptedServerThread() as server, RtspCamera([units]) as camera:
        plan = CameraPlan("gate", camera.url, "never", None, None, {"model": "m"}, None, False, False, True)
        async with StreamServer(server.address, None, "m", {}) as found:
            run = CameraRun(plan, found, Output(), None, MonotonicClock(), say)
            assert await run.run() == exit_codes.INCOMPLETE
    assert 20 <= len(shown) <= 24  # of a live camera, FFmpeg may keep its last frames
    assert shown == [("gate", index, "", index + 1, Status.OK) for index in range(len(shown))]


def test_a_camera_that_sends_another_video_goes_on_with_its_numbers():
    small = [unit.data for unit in clip(6, size=(320, 240), gop=6)]
    large = [unit.data for unit in clip(12, size=(640, 480), gop=6)]
    with RtspCamera([small, large]) as camera:
        calls, result = stream(camera.url, answers, "--limit", "12")
    assert result.exit_code == exit_codes.OK, result.output
    assert len(calls) == 2
    assert [json.loads(line)["frame"] for line in result.stdout.splitlines()] == list(range(12))


def test_of_several_sources_each_comes_back_on_its_own_and_a_dead_one_ends_alone(tmp_path):
    units = [unit.data for unit in clip(12, size=(320, 240), gop=6)]
    file = write(tmp_path / "a.mp4")
    with RtspCamera([units, units]) as gate, RtspCamera([units, units]) as yard:
        sources = (gate.url, "rtsp://127.0.0.1:9/none", yard.url, str(file))
        names = ("gate", "dead", "yard", "clip")
        words = [word for name in names for word in ("--camera", name)]
        calls, result = stream(sources[0], answers, *sources[1:], *words, "--limit", "20", "--delivery", "every")
    assert result.exit_code == exit_codes.NO_INPUT, result.output
    assert sorted(call.open.stream_id for call in calls) == ["clip", "gate", "yard"]
    frames = Counter(json.loads(line)["camera"] for line in result.stdout.splitlines())
    assert frames == {"gate": 20, "yard": 20, "clip": FRAMES}
    for name, camera in (("gate", gate), ("yard", yard)):
        for event in ("went away; trying to open it again", "is there again"):
            assert f"forebay: {name}: {camera.url} {event}" in result.stderr
    assert "forebay: dead: rtsp://127.0.0.1:9/none cannot be opened" in result.stderr


def test_a_camera_that_stays_away_does_not_end_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(reopening, "GIVE_UP_AFTER_S", 1.0)
    units = [unit.data for unit in clip(12, size=(320, 240), gop=6)]
    with RtspCamera([units]) as gate, RtspCamera([units, units, units]) as yard:
        _, result = stream(gate.url, answers, yard.url, "--limit", "30", "--delivery", "every")
    assert result.exit_code == exit_codes.INCOMPLETE, result.output
    frames = Counter(json.loads(line)["camera"] for line in result.stdout.splitlines())
    assert frames[yard.url] == 30
    assert 10 <= frames[gate.url] <= 12  # of a live camera, FFmpeg may keep its last frames
    assert f"forebay: {gate.url} went away and did not come back within 1 s" in result.stderr  # its name once


def test_keyframes_that_a_camera_cuts_apart_are_sent_whole():
    units = [unit.data for unit in clip(12, size=(320, 240), gop=4, params="slices=2")]
    with RtspCamera([units], repeats_sets=True) as camera:
        calls, result = stream(camera.url, answers, "--limit", "10", "--delivery", "every")
    assert result.exit_code == exit_codes.OK, result.output
    (call,) = calls
    reader = UnitReader("h264")
    reader.read_sets(call.open.parameter_sets)
    found = [reader.read(frame.payload).is_keyframe for frame in call.frames]
    assert found == [index % 4 == 0 for index in range(10)]

"""`forebay stream` and `forebay demo` against a scripted server."""

import asyncio
import json
import os
import signal

import cv2
import grpc
import numpy as np
import pytest
from typer.testing import CliRunner

from forebay.wire import frames_pb2 as wire
from forebay_server.service.cli import exit_codes
from forebay_server.service.cli.commands import app
from tests.support.scripted_server import ScriptedServerThread
from tests.unit.cli.test_file_end import write_video
from tests.unit.cli.test_video import lie_about_length, write_clip

PERSON = wire.Detection(
    label="person", class_id=0, score=0.75, box=wire.Box(x_min=0.25, y_min=0.25, x_max=0.5, y_max=0.75)
)


async def loses_the_first(call):
    await call.accept()
    await call.read()
    await call.answer(await call.read())
    await call.echo()


async def detects(call):
    await call.accept()
    while (frame := await call.read()) is not None:
        await call.answer(frame, detections=[PERSON])


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def lines(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_every_frame_of_a_clip_is_a_line(tmp_path):
    clip = write_clip(tmp_path / "a.avi")
    with ScriptedServerThread(detects) as server:
        result = run("stream", clip, "--address", server.address, "--threshold", 0.5, "--budget-ms", 900)
    assert result.exit_code == exit_codes.OK, result.output
    assert [line["frame"] for line in lines(result)] == list(range(10))
    assert lines(result)[0]["detections"][0]["label"] == "person"
    assert "10 frames: 10 ok" in result.stderr
    opened = server.calls[0].open
    assert opened.stream_id == "a.avi"
    assert (opened.delivery, opened.encoding) == (wire.DELIVERY_EVERY, wire.ENCODING_JPEG)  # as the file has it
    assert (opened.score_threshold, opened.latency_budget_ms) == (0.5, 900)


async def finds_a_shape(call):
    await call.accept()
    mask = wire.Mask(polygons=[wire.Polygon(points=[1, 2, 30, 2, 30, 40.123])])
    found = wire.Detection(
        label="person",
        score=0.75,
        keypoints=[wire.Keypoint(x=1, y=2, score=0.5)],
        rotated_box=wire.RotatedBox(cx=9, cy=8, width=7, height=6, angle_radians=0.5),
        mask=mask,
        track_id=3,
    )
    while (frame := await call.read()) is not None:
        await call.answer(frame, detections=[found])


def test_lines_have_the_shape_and_the_track_of_an_object(tmp_path):
    clip = write_clip(tmp_path / "a.avi")
    with ScriptedServerThread(finds_a_shape) as server:
        result = run("stream", clip, "--address", server.address, "--masks", "polygons", "--track", "--limit", 1)
    assert result.exit_code == exit_codes.OK, result.output
    (found,) = lines(result)[0]["detections"]
    assert found["keypoints"] == [{"x": 1, "y": 2, "score": 0.5}]
    assert found["rotated_box"] == {"cx": 9, "cy": 8, "width": 7, "height": 6, "angle_radians": 0.5}
    assert found["track_id"] == 3
    assert found["mask"]["polygons"][0] == pytest.approx([1, 2, 30, 2, 30, 40.12], abs=0.01)
    assert (server.calls[0].open.masks, server.calls[0].open.track) == (wire.MASK_FORMAT_POLYGONS, True)


def test_lines_of_boxes_alone_have_no_other_fields(tmp_path):
    clip = write_clip(tmp_path / "a.avi")
    with ScriptedServerThread(detects) as server:
        result = run("stream", clip, "--address", server.address, "--limit", 1)
    assert set(lines(result)[0]["detections"][0]) == {"label", "class_id", "score", "box", "box_pixels"}


def test_an_unknown_form_of_masks_is_refused(tmp_path):
    result = run("stream", write_clip(tmp_path / "a.avi"), "--masks", "rle")
    assert result.exit_code == exit_codes.USAGE
    assert "--masks must be polygons or run_lengths, not rle" in result.stderr


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, exit_codes.TERMINATED), (signal.SIGINT, exit_codes.INTERRUPTED)]
)
def test_a_signal_ends_all_cameras_with_their_totals(tmp_path, number, code):
    async def signals_at_the_third_frame(call):
        await call.accept()
        while (frame := await call.read()) is not None:
            await call.answer(frame)
            if call.seqs == [1, 2, 3] and call.index == 1:
                os.kill(os.getpid(), number)

    clips = [write_clip(tmp_path / name) for name in ("a.avi", "b.avi")]
    with ScriptedServerThread(signals_at_the_third_frame) as server:
        result = run("stream", *clips, "--address", server.address, "--loop", "--delivery", "latest")
    assert result.exit_code == code, result.output
    assert len(lines(result)) >= 3
    assert {line.partition(":")[0] for line in result.stderr.splitlines()} == {"a.avi", "b.avi"}
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize("sources", [["0", "rtsp://127.0.0.1/1"], ["-"]])
def test_a_loop_of_sources_without_a_beginning_is_refused(sources):
    result = run("stream", *sources, "--loop")
    assert result.exit_code == exit_codes.USAGE
    assert "--loop is for files and folders" in result.stderr


def test_annotated_clip_has_every_frame(tmp_path):
    clip, output = write_clip(tmp_path / "a.avi"), tmp_path / "boxes.mp4"
    with ScriptedServerThread(detects) as server:
        result = run("stream", clip, "--address", server.address, "--output", output, "--limit", 6)
    assert result.exit_code == exit_codes.OK, result.output
    capture = cv2.VideoCapture(str(output))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 6
    capture.release()


def test_folder_of_files_is_sent_as_it_is_and_its_lines_have_their_names(tmp_path):
    for number, height in enumerate((40, 50, 60)):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.zeros((height, 64, 3), np.uint8))
    with ScriptedServerThread(detects) as server:
        result = run("stream", tmp_path, "--address", server.address, "--output", tmp_path / "o.avi")
    assert result.exit_code == exit_codes.OK, result.output
    assert [line["file"] for line in lines(result)] == ["0.png", "1.png", "2.png"]
    (call,) = server.calls
    assert call.open.encoding == wire.ENCODING_PNG
    assert [frame.payload for frame in call.frames] == [(tmp_path / f"{n}.png").read_bytes() for n in range(3)]


def test_files_of_another_kind_are_converted_and_damaged_ones_are_left_to_the_server(tmp_path):
    picture = np.full((40, 60, 3), 90, np.uint8)
    for name in ("a.jpg", "b.jpg", "c.bmp"):
        cv2.imwrite(str(tmp_path / name), picture)
    cut = (tmp_path / "b.jpg").read_bytes()[:-200]
    (tmp_path / "b.jpg").write_bytes(cut)
    (tmp_path / "d.jpg").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no picture")
    with ScriptedServerThread(detects) as server:
        result = run("stream", tmp_path, "--address", server.address)
    assert result.exit_code == exit_codes.OK, result.output
    payloads = [frame.payload for frame in server.calls[0].frames]
    assert payloads[0] == (tmp_path / "a.jpg").read_bytes()
    assert payloads[1] == cut
    assert cv2.imdecode(np.frombuffer(payloads[2], np.uint8), cv2.IMREAD_COLOR).shape == (40, 60, 3)
    assert payloads[3] == b""
    assert "1 of 4 files are no JPEG and are sent as JPEG of quality 95" in result.stderr


def test_one_picture_file_is_a_source(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((40, 60, 3), np.uint8))
    with ScriptedServerThread(detects) as server:
        result = run("stream", tmp_path / "a.png", "--address", server.address)
    assert [line["file"] for line in lines(result)] == ["a.png"]
    assert server.calls[0].open.stream_id == "a.png"


def test_several_sources_are_cameras_with_totals_of_their_own(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    cv2.imwrite(str(folder / "0.jpg"), np.zeros((40, 60, 3), np.uint8))
    clips = [write_clip(tmp_path / name, frames=frames) for name, frames in (("a.avi", 10), ("b.avi", 5))]
    with ScriptedServerThread(detects) as server:
        result = run("stream", *clips, folder, clips[0], "--address", server.address, "--output", tmp_path / "o.avi")
    assert result.exit_code == exit_codes.OK, result.output
    frames = {name: [line["frame"] for line in lines(result) if line["camera"] == name] for name in ("a.avi", "b.avi")}
    assert frames == {"a.avi": list(range(10)), "b.avi": list(range(5))}
    for name, count in (("a.avi", 10), ("b.avi", 5), ("folder", 1), ("a.avi (2)", 10)):
        assert f"\n{name}: {count} frames: {count} ok\n" in f"\n{result.stderr}"
    assert {call.open.stream_id for call in server.calls} == {"a.avi", "b.avi", "folder", "a.avi (2)"}
    assert {path.name for path in tmp_path.glob("o*.avi")} == {
        "o-a.avi.avi", "o-b.avi.avi", "o-folder.avi", "o-a.avi-2.avi",
    }  # fmt: skip


def test_a_call_whose_frames_are_answered_is_left_to_end(tmp_path):
    """A cancelled call is one that broke, to the server: its page would tell of trouble with this camera."""
    ended = []

    async def ends_after_its_last_answer(call):
        await detects(call)
        await asyncio.sleep(0.05)  # the last answer is on its way before the end
        ended.append(call.open.stream_id)

    clips = [write_clip(tmp_path / name) for name in ("a.avi", "b.avi")]
    with ScriptedServerThread(ends_after_its_last_answer) as server:
        result = run("stream", *clips, "--address", server.address)
    assert result.exit_code == exit_codes.OK, result.output
    assert sorted(ended) == ["a.avi", "b.avi"]


def test_a_source_that_fails_leaves_the_others_alone(tmp_path):
    clip = write_clip(tmp_path / "a.avi")
    with ScriptedServerThread(detects) as server:
        result = run(
            "stream", tmp_path / "none.mp4", clip, "--address", server.address, "--camera", "x", "--camera", "y"
        )
    assert result.exit_code == exit_codes.NO_INPUT
    assert "forebay: x: " in result.stderr
    assert "none.mp4 does not exist" in result.stderr
    assert "y: 10 frames: 10 ok" in result.stderr
    assert {line["camera"] for line in lines(result)} == {"y"}


def test_pixels_that_are_too_large_for_the_server_are_sent_as_jpeg(tmp_path):
    async def small(call):
        if call.index == 0:
            await call.abort(grpc.StatusCode.INVALID_ARGUMENT, "a frame of this stream has 9216 bytes")
        await call.accept()
        await call.echo()

    clip = write_clip(tmp_path / "a.avi")
    with ScriptedServerThread(small) as server:
        result = run("stream", clip, "--address", server.address, "--transcode", "always")
    assert result.exit_code == exit_codes.OK, result.output
    assert server.calls[1].open.encoding == wire.ENCODING_JPEG
    assert cv2.imdecode(np.frombuffer(server.calls[1].frames[9].payload, np.uint8), 1).shape == (48, 64, 3)
    with ScriptedServerThread(small) as server:  # pixels that are asked for are not replaced
        result = run("stream", clip, "--address", server.address, "--encoding", "bgr8")
    assert (result.exit_code, len(server.calls)) == (exit_codes.FAILED, 1)
    assert "9216 bytes" in result.stderr


def test_a_loop_begins_again_at_the_end(tmp_path):
    clip = write_clip(tmp_path / "a.avi", frames=4)
    cv2.imwrite(str(tmp_path / "b.jpg"), np.zeros((40, 60, 3), np.uint8))
    with ScriptedServerThread(detects) as server:
        result = run("stream", clip, tmp_path / "b.jpg", "--address", server.address, "--loop", "--limit", 10)
    assert result.exit_code == exit_codes.OK, result.output
    assert result.stderr.count("10 frames: 10 ok") == 2


def test_clip_that_ends_before_its_declared_end_is_answered_and_told(tmp_path):
    clip = write_clip(tmp_path / "a.avi")
    lie_about_length(clip, 44)
    with ScriptedServerThread(detects) as server:
        result = run("stream", clip, "--address", server.address)
    assert result.exit_code == exit_codes.INCOMPLETE
    assert len(lines(result)) == 10
    assert "declares 44 frames, but ends after 10" in result.stderr


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_a_file_that_is_cut_near_its_end_is_told(tmp_path, suffix):
    options = {"movflags": "frag_keyframe+empty_moov"} if suffix == "mp4" else {}
    clip = write_video(tmp_path / f"a.{suffix}", options=options)
    clip.write_bytes(clip.read_bytes()[: -clip.stat().st_size // 14])
    with ScriptedServerThread(detects) as server:
        result = run("stream", clip, "--address", server.address)
    count = len(lines(result))
    assert result.exit_code == exit_codes.INCOMPLETE
    assert 20 < count < 30
    assert f"ends after {count} frames" in result.stderr or "in the middle of its data" in result.stderr


def test_a_last_frame_that_is_damaged_says_that_the_file_may_be_cut(tmp_path):
    async def script(call):
        await call.accept()
        while (frame := await call.read()) is not None:
            await call.answer(frame, code=wire.STATUS_INVALID if frame.seq == 30 else wire.STATUS_OK)

    clip = write_video(tmp_path / "a.h264", format="h264")
    with ScriptedServerThread(script) as server:
        result = run("stream", clip, "--address", server.address)
    assert result.exit_code == exit_codes.FAILED
    assert "it is the last one of a.h264: cut short?" in result.stderr


def test_clip_without_frames_is_told(tmp_path):
    clip = write_clip(tmp_path / "a.avi", frames=0)
    result = run("stream", clip)
    assert result.exit_code == exit_codes.NO_INPUT
    assert "a.avi" in result.stderr


def test_frames_that_were_not_answered_fail_the_command(tmp_path):
    with ScriptedServerThread(loses_the_first) as server:
        result = run("stream", write_clip(tmp_path / "a.avi"), "--address", server.address)
    assert result.exit_code == exit_codes.FAILED
    assert lines(result)[0]["status"] == "unanswered"


@pytest.mark.parametrize(("code", "word"), [(wire.STATUS_FAILED, "failed"), (wire.STATUS_INVALID, "invalid")])
def test_frames_that_the_model_cannot_answer_fail_the_command(tmp_path, code, word):
    async def script(call):
        await call.accept()
        await call.answer(await call.read())
        while (frame := await call.read()) is not None:
            await call.answer(frame, code, "scores hold values that are not finite numbers")

    with ScriptedServerThread(script) as server:
        result = run("stream", write_clip(tmp_path / "a.avi"), "--address", server.address)
    assert result.exit_code == exit_codes.FAILED
    assert len(lines(result)) == 10
    assert f"forebay: frame 2 {word}: scores hold values that are not finite numbers" in result.stderr


def test_a_server_that_tells_nothing_about_its_models_is_asked_for_the_bundled_detector(tmp_path):
    clip = write_clip(tmp_path / "a.avi")
    with ScriptedServerThread(detects) as server:  # it has no call about models
        assert run("stream", clip, "--address", server.address).exit_code == exit_codes.OK
    assert server.calls[0].open.model == "detector"


def test_the_address_follows_the_settings_of_the_server(tmp_path, monkeypatch):
    clip = write_clip(tmp_path / "a.avi")
    with ScriptedServerThread(detects) as server:
        monkeypatch.setenv("FOREBAY_ADDRESS", server.address)
        monkeypatch.delenv("FOREBAY_UDS", raising=False)
        result = run("stream", clip)
    assert result.exit_code == exit_codes.OK, result.output


def test_unknown_model_is_told_before_any_line(tmp_path):
    async def script(call):
        await call.abort(grpc.StatusCode.NOT_FOUND, "no model 'm'; there are: detector")

    with ScriptedServerThread(script) as server:
        result = run("stream", write_clip(tmp_path / "a.avi"), "--address", server.address, "--model", "m")
    assert result.exit_code == exit_codes.MODEL
    assert result.stdout == ""
    assert "there are: detector" in result.stderr


def test_a_missing_name_is_told_where_several_models_could_be_meant(tmp_path):
    async def script(call):
        await call.abort(grpc.StatusCode.NOT_FOUND, "no model 'detector' here; loaded are: a, b")

    with ScriptedServerThread(script) as server:
        result = run("stream", write_clip(tmp_path / "a.avi"), "--address", server.address)
    assert "loaded are: a, b: name one with --model" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--output", "o.gif"], "ends in .mp4"),
        (["--encoding", "bmp"], "--encoding must be"),
        (["--delivery", "some"], "--delivery must be"),
        (["--tls-cert", "c.pem"], "needs its key"),
        (["--camera", "a", "--camera", "b"], "--camera is given 2 times for 1 sources"),
        (["b.avi", "--camera", "a", "--camera", "a"], "two sources have the same name"),
        ([""], "a source is empty: is a variable not set?"),
        (["--serve", "--tls-ca", "no-such.pem"], "cannot read no-such.pem: No such file or directory"),
    ],
)
def test_wrong_flags_are_told(tmp_path, arguments, words):
    result = run("stream", write_clip(tmp_path / "a.avi"), *arguments)
    assert result.exit_code == exit_codes.USAGE
    assert words in result.stderr


@pytest.mark.slow
def test_demo_reports_every_frame_and_draws(tmp_path):
    with ScriptedServerThread(detects) as server:
        flags = ["--cameras", 2, "--fps", 20, "--seconds", 0.5, "--encoding", "jpeg", "--out", tmp_path, "--json"]
        result = run("demo", "--address", server.address, *flags)
    report = json.loads(result.stdout)
    assert (report["cameras"], report["lost"], report["out_of_order"], report["errors"]) == (2, 0, 0, [])
    assert report["frames_sent"] == report["results"] == report["frames_with_person"] == report["detections"]
    assert report["p50_ms"] <= report["p99_ms"]
    assert result.exit_code == exit_codes.OK
    assert cv2.imread(str(tmp_path / "demo.png")).shape == (602, 1542, 3)
    assert (tmp_path / "demo.mp4").stat().st_size > 10_000


@pytest.mark.slow
def test_demo_fails_when_frames_are_lost(tmp_path):
    with ScriptedServerThread(loses_the_first) as server:
        flags = ["--cameras", 1, "--fps", 20, "--seconds", 0.5, "--out", tmp_path, "--json"]
        result = run("demo", "--address", server.address, *flags)
    assert json.loads(result.stdout)["lost"] == 1
    assert result.exit_code == exit_codes.FAILED

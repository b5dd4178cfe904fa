"""Streams of H.264 and H.265 over a real server: each access unit is answered once, in order, with its own picture."""

import asyncio
import base64
import json
import sys
import threading

import cv2
import numpy as np
import pytest

from forebay.wire import frames_pb2 as pb
from forebay_server.loadtest.client import open_target
from forebay_server.loadtest.target import Encoding as LoadEncoding
from forebay_server.loadtest.target import Outcome, TargetSpec
from forebay_server.loadtest.video import access_units
from forebay_server.service.frontend.admission import Admission
from forebay_server.service.frontend.frames import servicer
from forebay_server.service.frontend.frames.video.codec import LibavCodec
from forebay_server.service.frontend.frames.video.decoder import MOST_WAITING_BYTES, MOST_WAITING_UNITS
from forebay_server.service.journal.streams import LIMIT
from tests.rpc.test_elsewhere import FRAMES, answer_to, is_for_elsewhere
from tests.rpc.test_pictures import asked
from tests.support.loops import on_loop
from tests.support.pictures import SIDE, pictures
from tests.support.real_server import eventually, open_message, real_server
from tests.support.videos import clip, level, parameter_sets

ENCODINGS = {"h264": pb.ENCODING_H264, "hevc": pb.ENCODING_H265}


async def opened(running, codec="h264", **fields):
    fields = {"delivery": pb.DELIVERY_EVERY, "max_in_flight": 32, **fields}
    return await running.open(model="camera", encoding=ENCODINGS[codec], **fields)


def shown_level(result):
    """The mean grey of the picture that the model saw."""
    assert result.status.code == pb.STATUS_OK, result.status
    return float(np.frombuffer(result.tensors[0].data, np.uint8).reshape(SIDE, SIDE, 3).mean())


async def answers(stream, units, first=1):
    """Send all units and half-close; return the results."""
    for seq, unit in enumerate(units, first):
        await stream.send(seq, payload=unit.data)
    await stream.half_close()
    return await stream.results()


@on_loop
@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize("bframes", [0, 3])
async def test_every_unit_is_answered_in_order_with_its_own_picture(tmp_path, codec, bframes):
    units = clip(24, codec, bframes=bframes)
    assert bool(bframes) == any(unit.shown != index for index, unit in enumerate(units))
    async with real_server(pictures(tmp_path)) as running:
        stream = await opened(running, codec, parameter_sets=parameter_sets(units[0], codec))
        assert (stream.opened.reorder_frames > 0) == bool(bframes)
        results = await answers(stream, units)
        assert [result.seq for result in results] == list(range(1, 25))
        for unit, result in zip(units, results, strict=True):
            assert shown_level(result) == pytest.approx(level(unit.shown), abs=3)


@on_loop
@pytest.mark.parametrize("codec", ["h264", "hevc"])
async def test_after_a_lost_frame_the_stream_waits_for_a_keyframe_and_asks_for_one(tmp_path, codec):
    units = clip(24, codec)
    async with real_server(pictures(tmp_path)) as running:
        stream = await opened(running, codec)
        for seq, unit in enumerate(units, 1):
            if seq != 4:
                await stream.send(seq, payload=unit.data)
        await stream.half_close()
        results = {result.seq: result for result in await stream.results()}
        lost = [seq for seq, result in results.items() if result.status.code == pb.STATUS_NEEDS_KEYFRAME]
        assert lost == list(range(5, 11))  # a keyframe is the 11th
        assert "send a keyframe" in results[5].status.message
        for seq in set(results) - set(lost):
            assert shown_level(results[seq]) == pytest.approx(level(seq - 1), abs=3)
        asked = [message.need_keyframe.since_seq for message in stream.controls if message.HasField("need_keyframe")]
        assert asked[0] == 5


@on_loop
async def test_a_stream_begins_at_its_first_keyframe(tmp_path):
    units = clip(15)
    async with real_server(pictures(tmp_path)) as running:
        stream = await opened(running, resume_from=7, parameter_sets=parameter_sets(units[0]))
        results = await answers(stream, units[6:], first=7)
        codes = [result.status.code for result in results]
        assert codes == [pb.STATUS_NEEDS_KEYFRAME] * 4 + [pb.STATUS_OK] * 5
        assert shown_level(results[4]) == pytest.approx(level(10), abs=3)


@on_loop
async def test_a_damaged_frame_is_invalid_and_those_that_need_it_wait(tmp_path):
    units = clip(15)
    half = units[3].data[: len(units[3].data) // 2]
    async with real_server(pictures(tmp_path)) as running:
        stream = await opened(running)
        for seq, unit in enumerate(units, 1):
            await stream.send(seq, payload=half if seq == 4 else unit.data)
        await stream.half_close()
        results = await stream.results()
        words = [pb.StatusCode.Name(result.status.code).removeprefix("STATUS_") for result in results]
        assert words == ["OK"] * 3 + ["INVALID"] + ["NEEDS_KEYFRAME"] * 6 + ["OK"] * 5
        assert "damaged" in results[3].status.message


@on_loop
@pytest.mark.parametrize("bframes", [0, 2])
async def test_latest_decodes_all_and_executes_the_newest(tmp_path, bframes):
    units = clip(30, bframes=bframes, gop=60)
    async with real_server(pictures(tmp_path)) as running:
        stream = await opened(running, delivery=pb.DELIVERY_LATEST, latency_budget_ms=60_000)
        results = await answers(stream, units)
        codes = {result.status.code for result in results}
        assert codes <= {pb.STATUS_OK, pb.STATUS_SUPERSEDED}
        assert [result.seq for result in results] == list(range(1, 31))
        shown = [(result.seq, shown_level(result)) for result in results if result.status.code == pb.STATUS_OK]
        assert shown
        for seq, grey in shown:  # right although frames between were not executed
            assert grey == pytest.approx(level(units[seq - 1].shown), abs=3)


@on_loop
@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"\0\0\0\x06\x65abcde", "AVCC"),
        (b"\0\0\1\x09\xf0", "no picture"),
        (b"\0\0\1" + b"\x67\x64\0\x1f" + b"\xff" * 20_000, "exceeds the limit"),
        (b"\0\0\1\x67", "cut or broken"),
        (b"", "start code"),
        (b"\xff\xd8\xff\xe0 a JPEG", "start code"),
        (b"\0\0\1\x09\xf0" * 5_000, "NAL units"),
    ],
)
async def test_what_is_no_access_unit_is_refused_in_words(tmp_path, payload, words):
    units = clip(3)
    async with real_server(pictures(tmp_path)) as running:
        stream = await opened(running)
        await stream.send(1, payload=units[0].data)
        await stream.send(2, payload=payload)
        await stream.send(3, payload=units[0].data)
        await stream.half_close()
        results = await stream.results()
        assert [result.status.code for result in results] == [pb.STATUS_OK, pb.STATUS_INVALID, pb.STATUS_OK]
        assert words in results[1].status.message


@on_loop
async def test_several_pictures_in_a_frame_are_refused(tmp_path):
    units = clip(4)
    async with real_server(pictures(tmp_path)) as running:
        stream = await opened(running)
        results = await answers(stream, [units[0], type(units[0])(units[1].data + units[2].data, 1, False), units[3]])
        assert [pb.StatusCode.Name(result.status.code) for result in results] == [
            "STATUS_OK",
            "STATUS_INVALID",
            "STATUS_NEEDS_KEYFRAME",
        ]
        assert "2 pictures" in results[1].status.message


@on_loop
async def test_the_number_and_the_memory_of_decoders_are_limited(tmp_path):
    units = clip(2)
    large = clip(1, size=(640, 480))
    limits = {"max_video_streams": 1, "video_memory_bytes": 5 << 20}
    async with real_server(pictures(tmp_path), **limits) as running:
        stream = await opened(running)
        refused = running.stream()
        await refused.send_open(model="camera", encoding=pb.ENCODING_H264)
        code, words = await refused.status()
        assert (code.name, "its limit" in words) == ("RESOURCE_EXHAUSTED", True)
        results = await answers(stream, [units[0], large[0], units[0]])
        codes = [result.status.code for result in results]
        assert codes == [pb.STATUS_OK, pb.STATUS_OVERLOADED, pb.STATUS_OK]
        assert running.server.frames._stream_calls.refused[LIMIT] == 1
        await eventually(lambda: not running.server.frames.video.streams)  # given back after the last answer
        again = await opened(running)
        assert [result.status.code for result in await answers(again, units)] == [pb.STATUS_OK] * 2


@on_loop
async def test_a_picture_beyond_the_limit_is_refused_before_it_is_decoded(tmp_path):
    large = clip(1, size=(640, 480))
    async with real_server(pictures(tmp_path), max_image_pixels=10_000) as running:
        stream = await opened(running)
        (result,) = await answers(stream, large)
        assert result.status.code == pb.STATUS_INVALID
        assert "640x480" in result.status.message


@on_loop
@pytest.mark.parametrize("codec", ["h264", "hevc"])
async def test_the_size_may_change_at_a_keyframe(tmp_path, codec):
    units = [*clip(3, codec), *clip(3, codec, size=(96, 80))]
    async with real_server(pictures(tmp_path)) as running:
        stream = await opened(running, codec)
        results = await answers(stream, units)
        for unit, result in zip(units, results, strict=True):
            assert shown_level(result) == pytest.approx(level(unit.shown), abs=3)


@on_loop
@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize("share", [0.001, 0.01, 0.05])
async def test_lost_frames_cost_those_up_to_the_next_keyframe_and_no_picture_is_wrong(tmp_path, codec, share):
    units = clip(150, codec, gop=10)
    lost = np.random.default_rng(7).random(150) < share
    lost[73] = True  # at least one, and no keyframe
    async with real_server(pictures(tmp_path)) as running:
        stream = await opened(running, codec)
        for seq, unit in enumerate(units, 1):
            if not lost[seq - 1]:
                await stream.send(seq, payload=unit.data)
        await stream.half_close()
        is_whole = False
        for result in await stream.results():
            index = result.seq - 1
            is_whole = units[index].is_keyframe or (is_whole and not lost[index - 1])
            assert (result.status.code == pb.STATUS_OK) == is_whole, (result.seq, result.status)
            if is_whole:
                assert shown_level(result) == pytest.approx(level(units[index].shown), abs=3)


@on_loop
async def test_keyframes_may_be_far_apart(tmp_path):
    units = clip(250, gop=250)  # 10 s
    async with real_server(pictures(tmp_path)) as running:
        stream = await opened(running)
        results = await answers(stream, units)
        assert {result.status.code for result in results} == {pb.STATUS_OK}
        assert shown_level(results[-1]) == pytest.approx(level(249), abs=3)


@on_loop
@pytest.mark.parametrize(("codec", "bframes"), [("h264", 0), ("hevc", 2)])
async def test_the_operators_page_shows_the_picture_of_a_frame(tmp_path, codec, bframes):
    units = clip(12, codec, size=(1280, 640), bframes=bframes)
    async with real_server(pictures(tmp_path), allow_pictures=True, admin_address="127.0.0.1:0") as running:
        stream = await opened(running, codec, allow_picture=True)
        await asked(running, "/metrics")
        uid = running.sessions[0].session._recorder.record.uid
        await asked(running, f"/picture?stream={uid}")
        for seq, unit in enumerate(units, 1):
            await stream.send(seq, payload=unit.data)
        await stream.results(6)
        shown = json.loads((await asked(running, f"/picture?stream={uid}"))[2])
        assert (shown["seq"], shown["sent"], shown["width"], shown["height"]) == (1, [1280, 640], 640, 320)
        pixels = cv2.imdecode(np.frombuffer(base64.b64decode(shown["jpeg"]), np.uint8), cv2.IMREAD_COLOR)
        assert pixels.shape == (320, 640, 3)
        assert pixels.mean() == pytest.approx(level(units[0].shown), abs=3)
        await stream.half_close()
        await stream.drain()


@on_loop
async def test_a_frame_that_a_camera_lost_before_the_client_is_noticed(tmp_path):
    units = clip(15)
    async with real_server(pictures(tmp_path)) as running:
        stream = await opened(running)
        results = await answers(stream, [*units[:4], *units[5:]])  # seq has no gap, frame_num has one
        codes = [result.status.code for result in results]
        assert codes == [pb.STATUS_OK] * 4 + [pb.STATUS_NEEDS_KEYFRAME] * 5 + [pb.STATUS_OK] * 5


@on_loop
async def test_a_server_without_the_library_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    async with real_server(pictures(tmp_path)) as running:
        stream = running.stream()
        await stream.send_open(model="camera", encoding=pb.ENCODING_H265)
        code, words = await stream.status()
        assert code.name == "UNIMPLEMENTED"
        assert words == (
            "open.encoding: this server cannot decode H265, it was installed without its extra 'video'; send JPEG"
        )


@on_loop
@pytest.mark.parametrize("sets", [b"no start code", b"\0\0\1\x09\xf0", b"\0\0\1" + bytes(20_000)])
async def test_broken_parameter_sets_are_refused_at_the_opening(tmp_path, sets):
    async with real_server(pictures(tmp_path)) as running:
        stream = running.stream()
        await stream.send_open(model="camera", encoding=pb.ENCODING_H264, parameter_sets=sets)
        code, words = await stream.status()
        assert code.name == "INVALID_ARGUMENT"
        assert words.startswith("open.parameter_sets")


@on_loop
@pytest.mark.parametrize(
    ("nbytes", "read"), [(1 << 20, (MOST_WAITING_BYTES >> 20) + 1), (10, MOST_WAITING_UNITS)], ids=["bytes", "units"]
)
async def test_a_stream_goes_on_when_the_frames_that_wait_were_answered_long_ago(tmp_path, nbytes, read):
    payload = b"\0\0\1\x09".ljust(nbytes, b"\xf0")
    count = read + 8
    async with real_server(pictures(tmp_path)) as running:
        stream = await opened(running)
        gate = threading.Event()
        for _ in range(running.server.pool.thread_count):
            running.server.pool.submit_result(gate.wait)
        try:

            async def send():
                for seq in range(1, count + 1):
                    await stream.send(seq, payload=payload, latency_budget_ms=-1)
                await stream.half_close()

            sending = asyncio.create_task(send())
            early = await stream.results(read)
            (session,) = [each.session for each in running.sessions]
            assert (session.frames_received, session.has_room) == (read, False)
        finally:
            gate.set()
        late = await stream.results()
        await sending
        assert {result.status.code for result in early + late} == {pb.STATUS_INVALID}
        assert len(late) == 8


@on_loop
async def test_an_error_that_nobody_foresaw_is_counted_once(tmp_path, monkeypatch):
    given_up, decode, give_up = [], LibavCodec.decode, Admission.give_up

    def fail_at_second(self, data, number):
        if number == 2:
            raise MemoryError
        return decode(self, data, number)

    def note(self, version, request, outcome):
        given_up.append(outcome.name)
        give_up(self, version, request, outcome)

    monkeypatch.setattr(LibavCodec, "decode", fail_at_second)
    monkeypatch.setattr(Admission, "give_up", note)
    units = clip(1)
    async with real_server(pictures(tmp_path)) as running:
        stream = await opened(running)
        codes = [result.status.code for result in await answers(stream, units * 3)]
        assert codes == [pb.STATUS_OK, pb.STATUS_FAILED, pb.STATUS_OK]
    assert given_up == ["INTERNAL"]


@on_loop
async def test_a_stream_that_fails_to_open_gives_its_place_back(tmp_path, monkeypatch):
    def no_memory(*_, **__):
        raise MemoryError

    async with real_server(pictures(tmp_path), max_video_streams=1) as running:
        with monkeypatch.context() as patch:
            patch.setattr(servicer, "Session", no_memory)
            stream = running.stream()
            await stream.send_open(model="camera", encoding=pb.ENCODING_H264)
            code, _ = await stream.status()
            assert code.name == "INTERNAL"
        assert running.server.frames.video.streams == 0


@on_loop
async def test_a_refusal_at_the_limit_of_video_streams_is_trailers_only_and_for_elsewhere(tmp_path):
    async with real_server(pictures(tmp_path), max_video_streams=1) as running:
        stream = await running.open(model="camera", encoding=pb.ENCODING_H264)
        opening = pb.ClientMessage(open=open_message(model="camera", encoding=pb.ENCODING_H264))
        assert is_for_elsewhere(await answer_to(running.address, FRAMES, opening))
        assert running.server.front_end.stream_numbers().refused[LIMIT] == 1
        await stream.half_close()
        assert await stream.results() == []


@on_loop
async def test_a_load_test_offers_video_and_counts_frames_that_wait_for_a_keyframe(tmp_path):
    pixels = [np.full((64, 64, 3), level(index), np.uint8) for index in range(3)]
    units = access_units(pixels, LoadEncoding.H264)
    async with real_server(pictures(tmp_path)) as running:
        target = open_target(TargetSpec(address=running.address, model="camera", encoding=LoadEncoding.H264), 1)
        stream = await target.open("load-0")
        found = []
        for seq, payload in enumerate([units[1], units[0]], 1):
            await stream.send(seq, seq, payload)
            found.append((await stream.receive()).outcome)
        await stream.finish()
        assert await stream.receive() is None
        await target.close()
        assert found == [Outcome.NEEDS_KEYFRAME, Outcome.OK]

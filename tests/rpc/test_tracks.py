"""Track ids over real streams of the bundled detector: they last, go on after a reconnect, and are refused in words."""

import sys

import cv2
import grpc

from forebay.wire import frames_pb2 as pb
from forebay_server.service.models.registry import BUNDLED_REPOSITORY
from tests.support.loops import on_loop
from tests.support.real_server import real_server

FRAMES = 6
STEP = 2  # frames of the clip between two that are sent; it has 25 a second
FRAME_US = 80_000


def clip():
    """The first frames of the clip as JPEG files."""
    video = cv2.VideoCapture(str(BUNDLED_REPOSITORY / "pedestrians.mp4"))
    try:
        files = []
        while len(files) < FRAMES:
            for _ in range(STEP):
                video.grab()
            is_read, pixels = video.retrieve()
            assert is_read
            files.append(cv2.imencode(".jpg", pixels)[1].tobytes())
        return files
    finally:
        video.release()


async def play(running, files, first_seq=1, **fields):
    """Results of the files on a stream of their own, and its Opened."""
    stream = running.stream()
    await stream.send_open(
        model="detector", encoding=pb.ENCODING_JPEG, delivery=pb.DELIVERY_EVERY, score_threshold=0.5, **fields
    )
    opened = (await stream.receive()).opened
    for number, data in enumerate(files):
        seq = first_seq + number
        await stream.send(seq, payload=data, capture_time_us=seq * FRAME_US)
    await stream.half_close()
    return opened, await stream.results()


def ids(result):
    return {item.track_id for item in result.detections if item.track_id}


@on_loop
async def test_ids_last_through_a_stream_and_go_on_at_the_next(tmp_path_factory):
    files = clip()
    async with real_server(cache_folder=tmp_path_factory.getbasetemp() / "costs") as running:
        opened, plain = await play(running, files)
        assert opened.track_resumption == pb.TRACK_RESUMPTION_UNSPECIFIED
        opened, whole = await play(running, files, track=True)
        assert opened.track_resumption == pb.TRACK_RESUMPTION_ANEW
        _, first = await play(running, files[:4], track=True)
        state = first[-1].track_state
        opened, second = await play(running, files[4:], first_seq=5, track=True, track_state=state)
        assert opened.track_resumption == pb.TRACK_RESUMPTION_CONTINUED
        opened, _ = await play(running, files[:1], track=True, track_state=state[:-1] + b"\0")
        assert opened.track_resumption == pb.TRACK_RESUMPTION_ANEW
    for result in (*plain, *whole, *first, *second):
        assert result.status.code == pb.STATUS_OK
    # the same detections as without tracks, although the tracker looks at lower scores as well
    assert [[d.box for d in one.detections] for one in whole] == [[d.box for d in one.detections] for one in plain]
    assert not any(ids(one) or one.track_state for one in plain)
    assert not ids(whole[0])
    assert len(ids(whole[1]) & ids(whole[-1])) >= 2
    assert [[d.track_id for d in one.detections] for one in first + second] == [
        [d.track_id for d in one.detections] for one in whole
    ]


@on_loop
async def test_tracks_go_on_at_another_server(tmp_path_factory):
    files, state = clip(), b""
    seen = []
    for first, last in ((0, 4), (4, 6)):
        costs = tmp_path_factory.getbasetemp() / "costs"
        async with real_server(cache_folder=costs, model_control_mode="explicit", load_model=("detector",)) as running:
            opened, answers = await play(running, files[first:last], first_seq=first + 1, track=True, track_state=state)
        state = answers[-1].track_state
        seen.append((opened.track_resumption, ids(answers[0]), ids(answers[-1])))
    (anew, none, before), (continued, after, _) = seen
    assert (anew, continued) == (pb.TRACK_RESUMPTION_ANEW, pb.TRACK_RESUMPTION_CONTINUED)
    assert not none  # a tracker that begins has no id for the first frame
    assert len(before & after) >= 2


@on_loop
async def test_a_server_without_the_library_says_which_extra_is_missing(tmp_path_factory, monkeypatch):
    monkeypatch.setitem(sys.modules, "lap", None)  # as where it is not installed: importing it fails
    costs = tmp_path_factory.getbasetemp() / "costs"
    async with real_server(cache_folder=costs, model_control_mode="explicit", load_model=("detector",)) as running:
        stream = running.stream()
        await stream.send_open(model="detector", encoding=pb.ENCODING_JPEG, track=True)
        assert await stream.status() == (
            grpc.StatusCode.UNIMPLEMENTED,
            "open.track: this server was installed without its extra 'track'",
        )
        _, plain = await play(running, clip()[:1])
    assert [result.status.code for result in plain] == [pb.STATUS_OK]


@on_loop
async def test_tracks_without_detections_are_refused(tmp_path_factory):
    async with real_server(cache_folder=tmp_path_factory.getbasetemp() / "costs") as running:
        stream = running.stream()
        await stream.send_open(model="faces", encoding=pb.ENCODING_JPEG, track=True, outputs=[pb.OUTPUT_TENSORS])
        code, words = await stream.status()
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "open.track needs OUTPUT_DETECTIONS" in words

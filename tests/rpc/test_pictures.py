"""The picture of the last frame on the admin port: access, content, and boxes."""

import base64
import json

import cv2
import numpy as np
import pytest

from forebay.encodings import LAYOUTS
from forebay.wire import frames_pb2 as pb
from forebay_server.service.frontend.frames.preview import MAX_SIDE_PIXELS, preview_jpeg
from tests.rpc.test_detector import as_jpeg, clip
from tests.rpc.test_observe import get
from tests.support.loops import on_loop
from tests.support.pictures import SIDE, jpeg, pictures
from tests.support.real_server import eventually, real_server, simulated

ADMIN = {"admin_address": "127.0.0.1:0"}


async def asked(running, path):
    """An answer of the admin port to which everything is known, and whose effect has come to the front end."""
    await running.told()
    answer = await get(running.server.admin_address, path)
    await running.told()
    return answer


async def opened(running, **fields):
    """A stream of pictures and its id on the page."""
    stream = await running.open(**{"model": "camera", "encoding": pb.ENCODING_JPEG, **fields})
    await stream.send(1, payload=jpeg())
    await stream.results(1)
    (session,) = running.sessions
    await asked(running, "/metrics")  # every opened stream is known after it
    return stream, session.session._recorder.record.uid


async def end(stream):
    await stream.half_close()
    await stream.drain()


@on_loop
@pytest.mark.parametrize(
    ("encoding", "side"),
    [("JPEG", SIDE), ("RGB8", SIDE), ("BGR8", 50), ("NV12", 50), ("MONO8", SIDE), ("MONO8", 50), ("PNG", 50)],
)
async def test_a_picture_of_every_encoding_comes_with_its_frame(tmp_path, encoding, side):
    if encoding in ("JPEG", "PNG"):
        payload = cv2.imencode(f".{encoding.lower()}", np.full((side, side, 3), 7, np.uint8))[1].tobytes()
    else:
        payload = bytes(LAYOUTS[pb.Encoding.Value(f"ENCODING_{encoding}")].nbytes(side, side))
    async with real_server(pictures(tmp_path), allow_pictures=True, **ADMIN) as running:
        fields = {"encoding": pb.Encoding.Value(f"ENCODING_{encoding}"), "width": side, "height": side}
        stream = await running.open(model="camera", allow_picture=True, **fields)
        await asked(running, "/metrics")
        uid = running.sessions[0].session._recorder.record.uid
        assert json.loads((await asked(running, f"/picture?stream={uid}"))[2]) == {}
        await stream.send(41, payload=payload)
        await stream.results(1)
        _, head, body = await asked(running, f"/picture?stream={uid}")
        shown = json.loads(body)
        assert "application/json" in head
        assert "no-store" in head
        assert (shown["seq"], shown["sent"]) == (41, [side, side])
        pixels = cv2.imdecode(np.frombuffer(base64.b64decode(shown["jpeg"]), np.uint8), cv2.IMREAD_COLOR)
        assert pixels.shape == (side, side, 3)
        await end(stream)


@on_loop
async def test_a_frame_that_did_not_end_well_gives_way_to_the_next(tmp_path):
    async with real_server(pictures(tmp_path), allow_pictures=True, **ADMIN) as running:
        stream, uid = await opened(running, allow_picture=True)
        assert json.loads((await asked(running, f"/picture?stream={uid}"))[2]) == {}
        for seq, payload in ((2, b"no picture"), (3, jpeg()), (4, jpeg())):
            await stream.send(seq, payload=payload)
            await stream.results(1)
        shown = json.loads((await asked(running, f"/picture?stream={uid}"))[2])
        assert shown["seq"] == 3
        await end(stream)
        await eventually(lambda: not running.sessions)
        await asked(running, "/metrics")
        assert (await asked(running, f"/picture?stream={uid}"))[0] == 404


@on_loop
@pytest.mark.parametrize(("setting", "consent", "status"), [(True, False, 403), (False, True, 404)])
async def test_without_both_consents_there_is_none(tmp_path, setting, consent, status):
    async with real_server(pictures(tmp_path), allow_pictures=setting, **ADMIN) as running:
        stream, uid = await opened(running, allow_picture=consent)
        assert running.sessions[0].session._recorder.picture is None
        answer, _, body = await asked(running, f"/picture?stream={uid}")
        assert answer == status
        assert "/9j/" not in body
        await end(stream)


@on_loop
async def test_tensors_have_no_picture(tmp_path):
    async with real_server(simulated(tmp_path), allow_pictures=True, **ADMIN) as running:
        stream = await running.open(allow_picture=True)
        assert running.sessions[0].session._recorder.picture is None
        await end(stream)


@on_loop
@pytest.mark.parametrize(
    "query",
    [
        "",
        "stream=",
        "stream=-1",
        "stream=x",
        "stream=1e3",
        "stream=%E2%91%A0",
        f"stream={'9' * 21}",
        f"stream={'9' * 5000}",
    ],
)
async def test_a_question_that_makes_no_sense_gets_a_reason(tmp_path, query):
    async with real_server(pictures(tmp_path), allow_pictures=True, **ADMIN) as running:
        status, _, body = await asked(running, f"/picture?{query}")
        assert status == 400
        assert "id of a stream" in body
        assert (await asked(running, "/picture?stream=99999999999999999999"))[0] == 404


@on_loop
async def test_the_boxes_are_those_that_the_client_got(tmp_path_factory):
    frame = clip()[0]
    costs = tmp_path_factory.getbasetemp() / "costs"
    async with real_server(cache_folder=costs, allow_pictures=True, **ADMIN) as running:
        stream = await running.open(model="detector", encoding=pb.ENCODING_JPEG, allow_picture=True)
        await asked(running, "/metrics")
        uid = running.sessions[0].session._recorder.record.uid
        await asked(running, f"/picture?stream={uid}")
        await stream.send(1, payload=as_jpeg(frame))
        (result,) = await stream.results(1)
        shown = json.loads((await asked(running, f"/picture?stream={uid}"))[2])
        assert max(shown["width"], shown["height"]) <= MAX_SIDE_PIXELS
        assert [(each["label"], each["score"], each["box"][0]) for each in shown["results"]] == [
            (d.label, round(d.score, 3), round(d.box.x_min, 4)) for d in result.detections
        ]
        assert shown["results"]
        await end(stream)


def test_what_else_is_in_a_clients_file_does_not_come_along():
    secret = b"Exif\x00\x00the place where it was taken"
    data = jpeg(100, 40)
    tagged = data[:2] + b"\xff\xe1" + (len(secret) + 2).to_bytes(2, "big") + secret + data[2:]
    small, width, height = preview_jpeg(memoryview(tagged), pb.ENCODING_JPEG, (100, 40))
    assert secret not in small
    assert (width, height) == (100, 40)
    assert preview_jpeg(memoryview(jpeg(1280, 40)), pb.ENCODING_JPEG, (1280, 40))[1:] == (640, 20)

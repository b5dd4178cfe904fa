"""Several cameras at once on the bundled detector: real frames of the clip, as JPEG files and as pixels."""

import asyncio

import cv2

from forebay.wire import frames_pb2 as pb
from forebay_server.service.models.registry import BUNDLED_REPOSITORY
from tests.support.loops import on_loop
from tests.support.real_server import real_server

FRAMES = 3
STEP = 25  # frames of the clip between two that are sent


def clip():
    """Every so many-th frame of the clip, shape (height, width, 3), blue first."""
    video = cv2.VideoCapture(str(BUNDLED_REPOSITORY / "pedestrians.mp4"))
    try:
        frames = []
        while len(frames) < FRAMES:
            for _ in range(STEP):
                video.grab()
            is_read, pixels = video.retrieve()
            assert is_read
            frames.append(pixels)
        return frames
    finally:
        video.release()


def as_jpeg(pixels):
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def boxes(result):
    return [(d.label, round(d.score, 3), d.box_pixels.x_min, d.box_pixels.y_min) for d in result.detections]


@on_loop
async def test_cameras_of_every_encoding_see_the_same_people(tmp_path_factory):
    frames = clip()
    height, width = frames[0].shape[:2]
    size = {"width": width, "height": height}
    payloads = {
        pb.ENCODING_JPEG: [as_jpeg(pixels) for pixels in frames],
        pb.ENCODING_BGR8: [pixels.tobytes() for pixels in frames],
        pb.ENCODING_RGB8: [cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB).tobytes() for pixels in frames],
        pb.ENCODING_PNG: [cv2.imencode(".png", pixels)[1].tobytes() for pixels in frames],
    }
    cameras = [*payloads, pb.ENCODING_JPEG, pb.ENCODING_BGR8]

    async def play(running, encoding):
        stream = await running.open(model="detector", encoding=encoding, stream_id=pb.Encoding.Name(encoding), **size)
        for seq, payload in enumerate(payloads[encoding]):
            await stream.send(seq, payload=payload)
        await stream.half_close()
        return await stream.results()

    async with real_server(cache_folder=tmp_path_factory.getbasetemp() / "costs") as running:
        by_camera = await asyncio.gather(*(play(running, encoding) for encoding in cameras))
    for results in by_camera:
        assert [(r.seq, r.status.code) for r in results] == [(seq, pb.STATUS_OK) for seq in range(FRAMES)]
        for result in results:
            assert "person" in {d.label for d in result.detections}
            scores = [d.score for d in result.detections]
            assert scores == sorted(scores, reverse=True)
            assert not result.tensors
            for d in result.detections:
                assert 0 <= d.box.x_min < d.box.x_max <= 1
                assert 0 <= d.box_pixels.y_min < d.box_pixels.y_max <= height
    jpeg, bgr, rgb, png, jpeg_again, bgr_again = ([boxes(r) for r in results] for results in by_camera)
    assert bgr == rgb == png == bgr_again  # the same pixels, in any batch
    assert jpeg == jpeg_again
    assert [len(a) > 0 for a in jpeg] == [len(a) > 0 for a in bgr]


@on_loop
async def test_a_monochrome_camera_sees_what_a_grey_picture_shows(tmp_path_factory):
    gray = [cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY) for pixels in clip()]
    height, width = gray[0].shape
    payloads = {
        pb.ENCODING_MONO8: [pixels.tobytes() for pixels in gray],
        pb.ENCODING_BGR8: [cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR).tobytes() for pixels in gray],
    }
    async with real_server(cache_folder=tmp_path_factory.getbasetemp() / "costs") as running:
        seen = []
        for encoding, frames in payloads.items():
            stream = await running.open(
                model="detector", encoding=encoding, width=width, height=height, delivery=pb.DELIVERY_EVERY
            )
            for seq, payload in enumerate(frames):
                await stream.send(seq, payload=payload)
            await stream.half_close()
            seen.append([boxes(result) for result in await stream.results()])
    assert seen[0] == seen[1]
    assert all(seen[0]), "a frame in which the detector finds nothing proves nothing"


@on_loop
async def test_thresholds_and_raw_tensors_are_per_stream(tmp_path_factory):
    payload = as_jpeg(clip()[0])
    async with real_server(cache_folder=tmp_path_factory.getbasetemp() / "costs") as running:
        wanted = [
            {"score_threshold": 0.05, "max_results": 3},
            {"score_threshold": 0.99},
            {"outputs": [pb.OUTPUT_TENSORS, pb.OUTPUT_DETECTIONS], "tensor_names": ["scores"]},
        ]
        results = []
        for fields in wanted:
            stream = await running.open(model="detector", encoding=pb.ENCODING_JPEG, **fields)
            await stream.send(1, payload=payload)
            await stream.half_close()
            results += await stream.results()
    assert len(results[0].detections) == 3
    assert len(results[1].detections) == 0
    assert [(t.name, list(t.shape), len(t.data)) for t in results[2].tensors] == [("scores", [3549], 4 * 3549)]
    assert results[2].detections

"""Serves one model file by `forebay serve FILE` and sends it pictures."""

import os
from pathlib import Path

import cv2
import grpc
import numpy as np

from forebay.wire import frames_pb2 as pb
from tests.exporters.comparison import Found
from tests.support.real_server import RawStream
from tests.support.serve_process import serve

LOADED_WITHIN_S = 300
"""A large model with an open batch is measured with up to as many rows as the server allows."""


async def answers(file, pictures, **fields):
    """The result of each picture: name to message. `fields` are those of Open."""
    results = {}
    async with (
        serve(file, environment=dict(os.environ)) as server,
        grpc.aio.insecure_channel(await server.wait_ready(LOADED_WITHIN_S)) as channel,
    ):
        stream = RawStream(channel)
        await stream.send_open(
            stream_id="pictures", model=Path(file).stem, encoding=pb.ENCODING_PNG, delivery=pb.DELIVERY_EVERY, **fields
        )
        for seq, (name, picture) in enumerate(pictures.items(), 1):
            await stream.send(seq, cv2.imencode(".png", picture)[1].tobytes())
            results[name] = await stream.result()
            assert results[name].status.code == pb.STATUS_OK, results[name].status
        await stream.half_close()
    return results


def found_in(result, extras=()):
    """The detections of a result, as arrays. `extras`: of keypoints, rotated, masks."""
    rows = result.detections
    boxes = [[r.box_pixels.x_min, r.box_pixels.y_min, r.box_pixels.x_max, r.box_pixels.y_max] for r in rows]
    read = {"keypoints": _keypoints, "rotated": _rotated, "masks": _mask}
    return Found(
        np.array([row.score for row in rows], np.float32),
        np.array([row.class_id for row in rows], np.int64),
        np.array(boxes, np.float32).reshape(-1, 4),
        {name: [read[name](row) for row in rows] for name in extras},
    )


def _keypoints(row):
    return np.array([[point.x, point.y, point.score] for point in row.keypoints])


def _rotated(row):
    box = row.rotated_box
    return np.array([box.cx, box.cy, box.width, box.height, box.angle_radians])


def _mask(row):
    """None for an object beyond the server's limit of masks."""
    if not row.HasField("mask"):
        return None
    runs = row.mask.run_lengths
    inside = np.arange(len(runs.counts)) % 2 == 1
    return np.repeat(inside, list(runs.counts)).reshape(runs.width, runs.height).T

"""Streams of pictures: files whose bytes are changed, and raw pictures of the wrong size."""

import functools

import cv2
import numpy as np

from forebay.encodings import LAYOUTS
from forebay.wire import frames_pb2 as pb
from tests.support.fuzz.frames import check, converse, frame, opening
from tests.support.fuzz.mutation import mutate_bytes
from tests.support.pictures import jpeg, png

RAW = {encoding: layout.nbytes(24, 18) for encoding, layout in LAYOUTS.items()}
RIGHT_AFTER = 4  # every so many pictures one is right, and must be answered


@functools.cache
def files(encoding):
    """Return right files of an encoding: small and large, with and without colours and progressive scans."""
    if encoding == pb.ENCODING_PNG:
        return png(), png(40, 30), png(1, 1)
    gray = np.random.default_rng(2).integers(0, 255, (33, 47), np.uint8)
    progressive = cv2.imencode(".jpg", gray, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    restarts = cv2.imencode(".jpg", np.dstack([gray] * 3), [cv2.IMWRITE_JPEG_RST_INTERVAL, 2])[1].tobytes()
    return jpeg(), jpeg(40, 30), jpeg(1, 1), progressive, restarts


def pictures(channel, rng, count):
    """One stream of pictures of one encoding; right ones are answered between any others."""
    encoding = rng.choice((pb.ENCODING_JPEG, pb.ENCODING_JPEG, pb.ENCODING_PNG, *RAW))
    opened = opening(rng, model="camera", encoding=encoding, width=24, height=18, outputs=[pb.OUTPUT_TENSORS])
    payloads = [_payload(encoding, index, rng) for index in range(count)]
    frames = [frame(seq, payload, rng) for seq, payload in enumerate(payloads, 1)]
    results, code, words = converse(channel, opened, frames)
    check(opened, frames, results, code, words)


def _payload(encoding, index, rng):
    if encoding in RAW:
        length = RAW[encoding]
        return rng.randbytes(length if index % RIGHT_AFTER == 0 else rng.choice((0, 1, length - 1, length + 1)))
    data = rng.choice(files(encoding))
    return data if index % RIGHT_AFTER == 0 else mutate_bytes(data, rng, rng.randint(1, 6))

"""Decoded pictures hold the sent pixels, and no memory that a decoder left unwritten.

OpenCV decodes animated PNGs onto a canvas that it does not clear: a first frame that is smaller than the picture, or
cut short, showed old contents of memory. Such memory is dirtied here with two patterns in turn.
"""

import struct
import zlib

import cv2
import numpy as np
import pytest

from forebay.wire import frames_pb2 as pb
from forebay_server.service.errors import InvalidRequestError
from forebay_server.service.frontend.frames.decode.pictures import decode_into
from forebay_server.service.pictures.picture_input import PictureInput

SIZE = WIDTH, HEIGHT = 64, 48
PATTERNS = (0xA7, 0x5B)
ROW = b"\0" + bytes([10]) * (3 * WIDTH)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def animated(frame, rows):
    """A PNG whose animation has one frame: (width, height, left, top)."""
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)),
            chunk(b"acTL", struct.pack(">II", 2, 0)),
            chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, *frame, 1, 10, 0, 0)),
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        )
    )


def decoded(file, encoding, pattern, size=SIZE):
    """The pixels over dirty memory, or why there are none."""
    dirt = [np.full(nbytes, pattern, np.uint8) for nbytes in (WIDTH * HEIGHT * 3, WIDTH * HEIGHT * 4) for _ in range(6)]
    del dirt  # the allocator gives it out next
    target = np.full((size[1], size[0], 3), pattern, np.uint8)
    try:
        decode_into(target, memoryview(file), encoding, SIZE, PictureInput(*size, "RGB"), 1_000_000)
    except InvalidRequestError as error:
        return str(error)
    return target


@pytest.mark.parametrize(
    ("frame", "rows"),
    [
        ((10, 10, 5, 5), (b"\0" + bytes([10]) * 30) * 10),
        ((10, 10, 5, 5), ROW * HEIGHT),
        ((WIDTH, HEIGHT, 0, 0), ROW * HEIGHT),
        ((WIDTH, HEIGHT, 0, 0), ROW * (HEIGHT // 2)),
        ((WIDTH, HEIGHT, 0, 0), b""),
        ((WIDTH + 1, HEIGHT + 1, 0, 0), ROW * HEIGHT),
    ],
)
def test_an_animated_png_is_its_still_picture_or_refused(frame, rows):
    for pattern in PATTERNS:
        found = decoded(animated(frame, rows), pb.ENCODING_PNG, pattern)
        assert isinstance(found, str) or (found == 10).all()


SOURCES = {
    "plain": [],
    "progressive": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
    "restarts": [cv2.IMWRITE_JPEG_RST_INTERVAL, 2],
}


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("size", [SIZE, (32, 24)])
def test_a_damaged_jpeg_has_the_same_pixels_whatever_lay_in_memory(name, size):
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    picture = np.stack([x * 4, y * 5, x * y % 256], -1).astype(np.uint8)
    file = cv2.imencode(".jpg", picture, SOURCES[name])[1].tobytes()
    random, accepted = np.random.default_rng(1), 0
    for _ in range(200):
        damaged = bytearray(file)
        place = int(random.integers(2, len(file)))
        match random.integers(0, 4):
            case 0:
                damaged[place] = int(random.integers(0, 256))
            case 1:
                del damaged[place : place + int(random.integers(1, 40))]
            case 2:
                damaged[place:place] = random.bytes(int(random.integers(1, 20)))
            case _:
                damaged[place : place + 2] = bytes([0xFF, int(random.integers(0xC0, 0xFF))])
        first, second = (decoded(bytes(damaged), pb.ENCODING_JPEG, pattern, size) for pattern in PATTERNS)
        np.testing.assert_array_equal(first, second)
        accepted += isinstance(first, np.ndarray)
    assert accepted > 20

"""PNG files have the pixels that OpenCV gives, and no file of a client writes into the operator's log."""

import subprocess
import sys

import numpy as np
import pytest

from forebay_server.service.errors import InvalidRequestError
from forebay_server.service.frontend.frames.decode.png import decode_png
from tests.support import pngs

MAX_PIXELS = 1 << 21
ANIMATED = ("acTL of nonsense", "acTL without frames", "fdAT that cannot be inflated")


@pytest.mark.parametrize("name", pngs.KINDS)
def test_every_kind_of_png_has_the_pixels_of_opencv(name):
    file = pngs.KINDS[name]
    pixels, size = decode_png(memoryview(file), MAX_PIXELS)
    assert size == (pngs.WIDTH, pngs.HEIGHT)
    assert np.array_equal(pixels, pngs.by_opencv(file))


@pytest.mark.parametrize("name", pngs.HARMLESS)
def test_what_lies_beside_the_pixels_changes_none(name):
    file = pngs.HARMLESS[name]
    pixels, _ = decode_png(memoryview(file), MAX_PIXELS)
    by_opencv = pngs.by_opencv(file)
    if by_opencv is None or name in ANIMATED:  # OpenCV gives up, or looks for a frame that is not there
        by_opencv = pngs.by_opencv(pngs.png())
    assert np.array_equal(pixels, by_opencv)


@pytest.mark.parametrize("name", pngs.BROKEN)
def test_a_broken_png_is_refused(name):
    with pytest.raises(InvalidRequestError, match=r"truncated or broken|not a PNG file"):
        decode_png(memoryview(pngs.BROKEN[name]), MAX_PIXELS)


@pytest.mark.parametrize("size", [(1, 1), (1, 100), (100, 1), (3, 5), (65536, 2)])
@pytest.mark.parametrize("interlace", [0, 1])
def test_sizes_at_which_passes_are_empty_or_blocks_are_full(size, interlace):
    rows = pngs.rows(interlace=interlace, size=size)
    file = pngs.file(pngs.header(interlace=interlace, size=size), pngs.chunk(b"IDAT", pngs.zlib.compress(rows)))
    pixels, _ = decode_png(memoryview(file), MAX_PIXELS)
    assert np.array_equal(pixels, pngs.by_opencv(file))


@pytest.mark.parametrize("kind", [b"IDAT", b"tEXt"])
def test_a_png_of_tiny_chunks_is_refused_and_a_png_of_many_is_not(kind):
    """16 MB of empty chunks took three seconds of Python, which nothing else of the process could use."""
    many, too_many = (pngs.png(2, 8, 0, *[pngs.chunk(kind)] * count) for count in (19_000, 20_000))
    decode_png(memoryview(many), MAX_PIXELS)
    with pytest.raises(InvalidRequestError, match="more than 20000 chunks; send it without metadata"):
        decode_png(memoryview(too_many), MAX_PIXELS)


OURS = """
from forebay_server.service.errors import InvalidRequestError
from forebay_server.service.frontend.frames.decode.png import decode_png

def decode(file):
    try:
        decode_png(memoryview(file), 1 << 21)
    except InvalidRequestError:
        pass
"""
OPENCV = "from tests.support.pngs import by_opencv as decode"
PROGRAM = """
from tests.support import pngs
import cv2

for file in (*pngs.HARMLESS.values(), *pngs.BROKEN.values()):
    try:
        decode(file)
    except cv2.error:
        pass
"""


def standard_error_of(decode):
    """The output of the process on descriptor 2, from any code in it."""
    ran = subprocess.run([sys.executable, "-c", decode + PROGRAM], capture_output=True, timeout=60, check=True)
    return ran.stderr.decode()


def test_no_png_writes_a_line_on_standard_error():
    assert standard_error_of(OURS) == ""


def test_the_files_are_such_that_libpng_would_write_lines():
    assert standard_error_of(OPENCV).count("libpng") > 30

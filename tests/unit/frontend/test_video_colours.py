"""Colours of decoded video against exact arithmetic: encoded without loss, decoded, brought to the model's picture."""

from fractions import Fraction

import av
import numpy as np
import pytest

from forebay_server.service.errors import InvalidRequestError
from forebay_server.service.frontend.frames.video.codec import LibavCodec, Picture
from forebay_server.service.frontend.frames.video.planes import place_picture
from forebay_server.service.pictures.picture_input import PictureInput

SHARES = {"bt601": (0.299, 0.114, 6), "bt709": (0.2126, 0.0722, 1), "bt2020": (0.2627, 0.0593, 9)}
TILE, COLUMNS, ROWS = 32, 8, 4
WIDTH, HEIGHT = TILE * COLUMNS, TILE * ROWS
MOST = 1 << 24


def colours():
    corners = [(r, g, b) for r in (0, 255) for g in (0, 255) for b in (0, 255)]
    others = np.random.default_rng(1).integers(0, 256, (COLUMNS * ROWS - 8, 3)).tolist()
    return np.array([*corners, *others], float)


def samples(matrix, bits, *, is_full):
    """The colours as Y, U and V."""
    red, blue, _ = SHARES[matrix]
    r, g, b = colours().T / 255
    y = red * r + (1 - red - blue) * g + blue * b
    u, v = (b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red))
    most, unit = (1 << bits) - 1, 1 << (bits - 8)
    if is_full:
        parts = [most * y, 128 * unit + most * u, 128 * unit + most * v]
    else:
        parts = [(16 + 219 * y) * unit, (128 + 224 * u) * unit, (128 + 224 * v) * unit]
    return [np.clip(np.rint(part), 0, most).reshape(ROWS, COLUMNS) for part in parts]


def decoded(codec, matrix, pixel_format, *, is_full):
    """Encode the colours as tiles without loss, with the matrix in the VUI, and decode them as the server does."""
    bits = 10 if "10" in pixel_format else 8
    frame = av.VideoFrame(WIDTH, HEIGHT, pixel_format)
    for plane, part in zip(frame.planes, samples(matrix, bits, is_full=is_full), strict=True):
        tile = (plane.height // ROWS, plane.width // COLUMNS)
        rows = np.zeros((plane.height, plane.line_size // (2 if bits > 8 else 1)), np.uint16 if bits > 8 else np.uint8)
        rows[:, : plane.width] = np.repeat(np.repeat(part, tile[0], 0), tile[1], 1)
        plane.update(rows.tobytes())
    encoder = av.CodecContext.create({"h264": "libx264", "hevc": "libx265"}[codec], "w")
    encoder.width, encoder.height, encoder.pix_fmt = WIDTH, HEIGHT, pixel_format
    encoder.time_base, encoder.framerate = Fraction(1, 25), Fraction(25)
    encoder.colorspace, encoder.color_range = SHARES[matrix][2], 2 if is_full else 1
    encoder.thread_count = 1
    own = {"qp": "0"} if codec == "h264" else {"x265-params": "lossless=1:log-level=none:pools=none"}
    encoder.options = {"preset": "ultrafast", **own}
    frame.pts = 0
    data = b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])
    server = LibavCodec(codec, MOST)
    (picture,) = [*server.decode(data, 1), *server.drain()]
    return picture


CASES = [
    *[("h264", matrix, "yuv420p", is_full) for matrix in SHARES for is_full in (False, True)],
    ("h264", "bt709", "yuv422p", False),
    ("h264", "bt601", "yuv444p", True),
    ("h264", "bt709", "yuv420p10le", False),
    ("hevc", "bt709", "yuv420p", False),
    ("hevc", "bt601", "yuv420p", True),
    ("hevc", "bt2020", "yuv420p10le", False),
]


@pytest.mark.parametrize(("codec", "matrix", "pixel_format", "is_full"), CASES)
@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_flat_colours_are_within_two_of_their_source(codec, matrix, pixel_format, is_full, order):
    picture = decoded(codec, matrix, pixel_format, is_full=is_full)
    assert (picture.matrix, picture.is_full_range, picture.pixel_format.replace("j", "")) == (
        SHARES[matrix][2],
        is_full,
        pixel_format,
    )
    for model in (PictureInput(WIDTH, HEIGHT, order), PictureInput(WIDTH // 2, HEIGHT // 2, order)):
        target = np.zeros(model.shape, np.uint8)
        assert place_picture(target, picture, model, MOST) == (WIDTH, HEIGHT)
        step = TILE * model.width // WIDTH
        middles = target[step // 2 :: step, step // 2 :: step]
        found = middles.reshape(-1, 3).astype(float)
        wanted = colours() if order == "RGB" else colours()[:, ::-1]
        assert np.abs(found - wanted).max() <= 2


def flat(pixel_format="yuv420p", matrix=2, size=(64, 64), chroma=160, planes=3):
    width, height = size
    luma = np.full((height, width), 100, np.uint8)
    return Picture(
        1,
        pixel_format,
        size,
        matrix,
        False,
        (luma, *[np.full((height // 2, width // 2), chroma, np.uint8)] * (planes - 1)),
        False,
    )


def seen(picture, model):
    target = np.zeros(model.shape, np.uint8)
    place_picture(target, picture, model, MOST)
    return target


@pytest.mark.parametrize(("rows", "stated"), [(576, 6), (720, 1)])
def test_an_unstated_matrix_is_that_of_the_size(rows, stated):
    model = PictureInput(32, 32, "RGB")
    unstated, meant = (seen(flat(matrix=matrix, size=(1024, rows)), model) for matrix in (2, stated))
    assert (unstated == meant).all()
    assert (unstated != seen(flat(matrix=7 - stated, size=(1024, rows)), model)).any()


def test_grey_video_has_no_colour():
    target = seen(flat("gray", planes=1), PictureInput(32, 32, "RGB"))
    assert (target == round((100 - 16) * 255 / 219)).all()


def test_a_letterboxed_picture_is_where_the_model_expects_it():
    target = seen(flat(size=(64, 32), chroma=128), PictureInput(32, 32, "RGB", resize="letterbox"))
    assert (target[:8] == 114).all()
    assert (target[8:24] == 98).all()
    assert (target[24:] == 114).all()


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (flat("gbrp"), "pixel format gbrp"),
        (flat(matrix=14), "matrix_coefficients 14"),
        (flat(size=(8192, 4096)), "exceeds the limit"),
    ],
)
def test_other_kinds_are_refused_in_words(picture, words):
    with pytest.raises(InvalidRequestError, match=words):
        seen(picture, PictureInput(32, 32, "RGB"))

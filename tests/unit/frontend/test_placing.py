"""A frame lies in the model's picture as an oracle in double precision says, and every number is written exactly.

The oracle shares no code with the service: it interpolates, cuts, pads and normalises with plain numpy, and
resizes for a centre crop with Pillow.
"""

from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from forebay.wire import frames_pb2 as pb
from forebay_server.service.errors import InvalidRequestError
from forebay_server.service.frontend.frames.decode.antialiased import resize_antialiased
from forebay_server.service.frontend.frames.decode.pictures import decode_into
from forebay_server.service.pictures.geometry import placement_of
from forebay_server.service.pictures.picture_input import PictureInput, Values

MOST = 4_000_000
RGB8, BGR8, MONO8, PNG = pb.ENCODING_RGB8, pb.ENCODING_BGR8, pb.ENCODING_MONO8, pb.ENCODING_PNG
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "scale": 1 / 255}
ROUNDED = 1.01  # OpenCV interpolates bytes with 11 bits and rounds


def decoded(payload, encoding, size, picture):
    """The picture, between guards that nothing may touch."""
    count = int(np.prod(picture.shape))
    memory = np.full(count + 32, 77, picture.dtype)
    target = memory[16:-16].reshape(picture.shape)
    target.view(np.uint8)[:] = 0xA5
    assert decode_into(target, memoryview(payload), encoding, size, picture, MOST) == size
    assert np.all(memory[:16] == 77)
    assert np.all(memory[-16:] == 77)
    return target


def noise(width, height, channels=3, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def smooth(width, height):
    y, x = np.mgrid[0:height, 0:width]
    channels = (127 + 120 * np.sin(x / 17), 127 + 120 * np.cos(y / 11), 127 + 100 * np.sin((x + y) / 23))
    return np.stack(channels, axis=-1).round().astype(np.uint8)


# The oracle.


def bilinear(pixels, width, height):
    def axis(count, wanted):
        at = np.clip((np.arange(wanted) + 0.5) * count / wanted - 0.5, 0, count - 1)
        low = np.floor(at).astype(int)
        return low, np.minimum(low + 1, count - 1), at - low

    pixels = pixels.astype(np.float64)
    low, high, part = axis(pixels.shape[0], height)
    rows = pixels[low] * (1 - part)[:, None, None] + pixels[high] * part[:, None, None]
    low, high, part = axis(pixels.shape[1], width)
    return rows[:, low] * (1 - part)[None, :, None] + rows[:, high] * part[None, :, None]


def resized_by_pillow(frame, size, how=Image.Resampling.BILINEAR):
    image = Image.fromarray(frame[..., 0] if frame.shape[2] == 1 else frame)
    return np.asarray(image.resize(size, how)).reshape(*size[::-1], -1)


def letterboxed(pixels, width, height, pad_value, at):
    ratio = min(width / pixels.shape[1], height / pixels.shape[0])
    inner = bilinear(pixels, round(pixels.shape[1] * ratio), round(pixels.shape[0] * ratio))
    whole = np.full((height, width, pixels.shape[2]), float(pad_value))
    left, top = ((width - inner.shape[1]) // 2, (height - inner.shape[0]) // 2) if at == "center" else (0, 0)
    whole[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return whole


def normalised(pixels, mean, std, scale):
    return (np.asarray(pixels, np.float64) * scale - np.array(mean)) / np.array(std)


# The tests.


@pytest.mark.parametrize("at", ["center", "bottom_right"])
@pytest.mark.parametrize("size", [(1280, 720), (810, 1080), (1000, 360), (333, 500), (64, 48), (333, 64)])
def test_a_letterbox_is_that_of_the_oracle(size, at):
    frame = smooth(*size)
    values = Values("NCHW", "float32", **IMAGENET)
    picture = PictureInput(320, 256, "RGB", "letterbox", pad_value=114, pad_at=at, values=values)
    expected = normalised(letterboxed(frame, 320, 256, 114, at), **IMAGENET).transpose(2, 0, 1)
    found = decoded(frame.tobytes(), RGB8, size, picture)
    assert np.abs(found - expected).max() <= ROUNDED / 255 / min(IMAGENET["std"])
    padding = np.all(letterboxed(np.full_like(frame, 7), 320, 256, 114, at) == 114, axis=-1)
    assert np.allclose(found[:, padding].T, normalised([114] * 3, **IMAGENET), atol=1e-6)


@pytest.mark.parametrize("size", [(1280, 720), (720, 1280), (500, 333), (256, 256)])
def test_a_centre_crop_is_that_of_the_oracle(size):
    frame = smooth(*size)
    shorter, longer = 256, 256 * max(size) // min(size)
    resized = resized_by_pillow(frame, (longer, shorter) if size[0] > size[1] else (shorter, longer))
    top, left = round((resized.shape[0] - 224) / 2), round((resized.shape[1] - 224) / 2)
    expected = normalised(resized[top : top + 224, left : left + 224], **IMAGENET)
    values = Values("NHWC", "float32", **IMAGENET)
    picture = PictureInput(224, 224, "RGB", "center_crop", resize_to=256, interpolation="bilinear", values=values)
    found = decoded(frame.tobytes(), RGB8, size, picture)
    assert np.array_equal(found, expected.astype(np.float32))


@pytest.mark.parametrize("size", [(50, 20), (20, 50), (50, 50), (20, 20), (33, 33)])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_crop_pad_moves_pixels_unchanged(size, layout):
    frame = noise(*size)
    whole = np.full((33, 33, 3), 9, np.uint8)
    cut = [max(0, round((side - 33) / 2)) for side in size]
    left, top = (max(0, (33 - side) // 2) for side in size)
    seen = frame[cut[1] : cut[1] + 33, cut[0] : cut[0] + 33]
    whole[top : top + seen.shape[0], left : left + seen.shape[1]] = seen
    picture = PictureInput(33, 33, "RGB", "crop_pad", pad_value=9, values=Values(layout))
    found = decoded(frame.tobytes(), RGB8, size, picture)
    assert np.array_equal(found, whole if layout == "NHWC" else whole.transpose(2, 0, 1))


SIDES = st.integers(1, 40)
NUMBERS = st.sampled_from(
    [
        {"mean": (0.0,), "std": (1.0,), "scale": 1 / 255},
        {"mean": (103.53, 116.28, 123.675), "std": (57.375, 57.12, 58.395), "scale": 1.0},
        {"mean": (127.5,), "std": (127.5,), "scale": 1.0},
        IMAGENET,
    ]
)


@st.composite
def pictures(draw):
    order = draw(st.sampled_from(["RGB", "BGR", "GRAY"]))
    dtype = draw(st.sampled_from(["float32", "float16", "uint8"]))
    numbers = {} if dtype == "uint8" else dict(draw(NUMBERS))
    if order == "GRAY" and numbers:
        numbers |= {"mean": numbers["mean"][:1], "std": numbers["std"][:1]}
    resize = draw(st.sampled_from(["stretch", "letterbox", "center_crop", "crop_pad"]))
    return PictureInput(
        draw(SIDES),
        draw(SIDES),
        order,
        resize,
        pad_value=draw(st.integers(0, 255)),
        pad_at=draw(st.sampled_from(["center", "bottom_right"])),
        resize_to=draw(st.none() | st.integers(1, 50)) if resize == "center_crop" else None,
        interpolation=draw(st.sampled_from(["opencv", "bilinear", "bicubic"])),
        values=Values(draw(st.sampled_from(["NHWC", "NCHW"])), dtype, **numbers),
    )


@given(pictures(), st.tuples(SIDES, SIDES), st.sampled_from([RGB8, BGR8, MONO8, PNG]))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_every_number_of_every_form_is_exact(picture, size, encoding):
    """Numbers are those of the picture's bytes, computed in double precision and rounded once."""
    frame = noise(*size, channels=1 if encoding == MONO8 else 3)
    payload = cv2.imencode(".png", frame)[1].tobytes() if encoding == PNG else frame.tobytes()
    expected = normalised(oracle_of_bytes(frame, encoding, size, picture), **numbers_of(picture.values))
    if picture.values.layout == "NCHW":
        expected = expected.transpose(2, 0, 1)
    found = decoded(payload, encoding, size, picture)
    assert np.array_equal(found, expected.astype(picture.dtype))


def numbers_of(values):
    return {"mean": values.mean, "std": values.std, "scale": values.scale}


def resized(frame, size, how):
    if how == "opencv":
        return cv2.resize(frame, size)
    return resized_by_pillow(frame, size, Image.Resampling[how.upper()])


def oracle_of_bytes(frame, encoding, size, picture):
    """The model's picture as bytes, channels last, by OpenCV's or Pillow's resizing of the whole frame."""
    place = placement_of(picture, size)
    if place.resized != size:
        frame = resized(frame, place.resized, picture.interpolation).reshape(*place.resized[::-1], -1)
    order = {RGB8: "RGB", BGR8: "BGR", PNG: "BGR", MONO8: "GRAY"}[encoding]
    if order != picture.color_order and order == "GRAY":
        frame = np.repeat(frame, 3, axis=2)
    elif order != picture.color_order and picture.color_order == "GRAY":
        frame = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY if order == "RGB" else cv2.COLOR_BGR2GRAY)[..., None]
    elif order != picture.color_order:
        frame = frame[..., ::-1]
    whole = np.full((picture.height, picture.width, picture.channels), picture.pad_value, np.uint8)
    for y in range(max(0, place.top), min(picture.height, place.top + place.resized[1])):
        for x in range(max(0, place.left), min(picture.width, place.left + place.resized[0])):
            whole[y, x] = frame[y - place.top, x - place.left]
    return whole


@pytest.mark.parametrize("values", [Values("NHWC"), Values("NCHW", "float32", scale=1 / 255)])
def test_a_frame_of_which_nothing_is_cut_is_resized_for_classifiers_too(values):
    frame = noise(96, 96)
    picture = PictureInput(40, 40, "RGB", "center_crop", interpolation="bilinear", values=values)
    found = decoded(frame.tobytes(), RGB8, (96, 96), picture)
    expected = normalised(resized_by_pillow(frame, (40, 40)), **numbers_of(values))
    expected = expected.transpose(2, 0, 1) if values.layout == "NCHW" else expected
    assert np.array_equal(found, expected.astype(picture.dtype))


@given(
    st.data(),
    st.integers(1, 90),
    st.integers(1, 200),
    st.sampled_from([1, 3]),
    st.sampled_from(["bilinear", "bicubic"]),
)
def test_antialiased_pixels_are_those_of_pillow_to_the_bit(data, width, height, channels, how):
    size = data.draw(st.tuples(st.integers(1, 60), st.integers(1, 60)))
    columns, rows = (data.draw(st.integers(0, side - 1).flatmap(partial(windows, side))) for side in size)
    frame = noise(width, height, channels)
    expected = resized_by_pillow(frame, size, Image.Resampling[how.upper()])[rows, columns]
    found = resize_antialiased(frame if channels == 3 else frame[..., 0], size, rows, columns, how)
    assert np.array_equal(found.reshape(expected.shape), expected)


def windows(side, first):
    return st.integers(first + 1, side).map(lambda stop: slice(first, stop))


@pytest.mark.parametrize("order", ["RGB", "BGR", "GRAY"])
@pytest.mark.parametrize("resize", ["letterbox", "center_crop"])
def test_every_encoding_gives_the_same_picture(order, resize):
    rgb = cv2.GaussianBlur(smooth(96, 64), (0, 0), 3)
    yuv = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420).reshape(-1)
    luma, chroma = yuv[: 96 * 64], yuv[96 * 64 :].reshape(2, -1)
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    payloads = {
        BGR8: bgr.tobytes(),
        PNG: cv2.imencode(".png", bgr)[1].tobytes(),
        pb.ENCODING_JPEG: cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes(),
        pb.ENCODING_NV12: luma.tobytes() + np.ascontiguousarray(chroma.T).tobytes(),
    }
    how = "bilinear" if resize == "center_crop" else "opencv"
    picture = PictureInput(48, 48, order, resize, interpolation=how, values=Values("NCHW", "float16", scale=1 / 255))
    expected = decoded(rgb.tobytes(), RGB8, (96, 64), picture).astype(float)
    for encoding, payload in payloads.items():
        found = decoded(payload, encoding, (96, 64), picture).astype(float)
        assert np.abs(found - expected).max() <= 12 / 255, encoding


def test_a_narrow_frame_that_would_become_huge_is_refused():
    picture = PictureInput(224, 224, "RGB", "center_crop", resize_to=256, interpolation="bilinear")
    target = np.empty(picture.shape, np.uint8)
    with pytest.raises(InvalidRequestError, match="would have 16776960x256 once its shorter side fits"):
        decode_into(target, memoryview(bytes(65535 * 3)), RGB8, (65535, 1), picture, MOST)


def test_a_fast_jpeg_covers_what_is_cut():
    frame = smooth(1280, 720)
    file = cv2.imencode(".jpg", frame)[1].tobytes()
    exact = PictureInput(224, 224, "BGR", "center_crop", resize_to=256, interpolation="bilinear")
    fast = replace(exact, jpeg_scale="fast")
    found, expected = (decoded_file(file, each, (1280, 720)).astype(int) for each in (fast, exact))
    assert np.abs(found - expected).mean() < 2


def decoded_file(file, picture, size):
    target = np.zeros(picture.shape, np.uint8)
    assert decode_into(target, memoryview(file), pb.ENCODING_JPEG, (0, 0), picture, MOST) == size
    return target

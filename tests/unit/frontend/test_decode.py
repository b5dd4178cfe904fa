"""Pictures become the model's pixels as OpenCV would make them, and nothing that a client sends does more than fail."""

import contextlib
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forebay.encodings import LAYOUTS
from forebay.wire import frames_pb2 as pb
from forebay_server.service.errors import InvalidRequestError
from forebay_server.service.frontend.frames.decode import pictures
from forebay_server.service.frontend.frames.decode.pictures import decode_into
from forebay_server.service.pictures.picture_input import PictureInput
from tests.support.mutations import JPEGS, PNGS, mutations, with_right_checksums

RGB8, BGR8, JPEG, PNG, NV12, MONO8 = (
    pb.ENCODING_RGB8,
    pb.ENCODING_BGR8,
    pb.ENCODING_JPEG,
    pb.ENCODING_PNG,
    pb.ENCODING_NV12,
    pb.ENCODING_MONO8,
)
MAX_PIXELS = 1_000_000
SOF0 = b"\xff\xc0"
ORDERS = ("RGB", "BGR")
TOLERANCES = {RGB8: 0, BGR8: 0, PNG: 0, JPEG: 4, NV12: 1, MONO8: 0}


def picture(width, height):
    """A smooth BGR picture whose channels differ: 4:2:0 and scaling lose little of it."""
    y, x = np.mgrid[0:height, 0:width]
    channels = (x * 255 // max(1, width - 1), y * 255 // max(1, height - 1), np.full_like(x, 40))
    return np.ascontiguousarray(np.stack(channels, axis=-1).astype(np.uint8))


def encode(bgr, encoding):
    height, width = bgr.shape[:2]
    if encoding == JPEG:
        return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
    if encoding == PNG:
        return cv2.imencode(".png", bgr)[1].tobytes()
    if encoding == RGB8:
        return np.ascontiguousarray(bgr[..., ::-1]).tobytes()
    if encoding == MONO8:
        return cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY).tobytes()
    if encoding == NV12:
        planar = cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_I420).reshape(-1)
        luma, chroma = planar[: width * height], planar[width * height :].reshape(2, -1)
        return luma.tobytes() + np.ascontiguousarray(chroma.T).tobytes()
    return bgr.tobytes()


def reference(payload, encoding, size):
    """OpenCV's decoding of it, BGR at full size."""
    flat = np.frombuffer(payload, np.uint8)
    if encoding in {JPEG, PNG}:
        return cv2.imdecode(flat, cv2.IMREAD_COLOR)
    if encoding == NV12:
        return cv2.cvtColor(flat.reshape(size[1] * 3 // 2, size[0]), cv2.COLOR_YUV2BGR_NV12)
    if encoding == MONO8:
        return np.stack([flat.reshape(size[1], size[0])] * 3, axis=-1)
    pixels = flat.reshape(size[1], size[0], 3)
    return pixels if encoding == BGR8 else pixels[..., ::-1]


def decode(payload, encoding, size=(0, 0), target_size=(32, 24), order="RGB", max_pixels=MAX_PIXELS):
    target = np.full((target_size[1], target_size[0], 3), 0xEE, np.uint8)
    image = PictureInput(*target_size, order)
    sent_size = decode_into(target, memoryview(payload), encoding, size, image, max_pixels)
    return target, sent_size


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("size", [(32, 24), (64, 48), (90, 50), (16, 12)], ids=["same", "half", "odd", "smaller"])
@pytest.mark.parametrize(("encoding", "tolerance"), TOLERANCES.items(), ids=str)
def test_pixels_equal_those_of_opencv(encoding, tolerance, size, order):
    payload = encode(picture(*size), encoding)
    pixels, sent_size = decode(payload, encoding, size, order=order)
    bgr = reference(payload, encoding, size)
    expected = bgr if size == (32, 24) else cv2.resize(bgr, (32, 24), interpolation=cv2.INTER_LINEAR)
    expected = expected if order == "BGR" else expected[..., ::-1]
    assert sent_size == size
    difference = np.abs(pixels.astype(int) - expected.astype(int))
    assert difference.max() <= tolerance
    assert difference.mean() <= tolerance / 4
    original = reference(encode(picture(*size), MONO8), MONO8, size) if encoding == MONO8 else picture(*size)
    assert np.abs(bgr.astype(int) - original).mean() < 10, "the reference sees another picture"


@pytest.mark.parametrize("order", ORDERS)
def test_a_jpeg_is_decoded_whole_unless_the_model_allows_less(order):
    noise = np.random.default_rng(5).integers(0, 255, (96, 128, 3), np.uint8)  # a reduced size would blur it
    file = encode(noise, JPEG)
    pixels, _ = decode(file, JPEG, order=order)
    whole = cv2.resize(cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR), (32, 24))
    assert np.array_equal(pixels, whole if order == "BGR" else whole[..., ::-1])
    target = np.empty((24, 32, 3), np.uint8)
    decode_into(target, memoryview(file), JPEG, (0, 0), PictureInput(32, 24, order, jpeg_scale="fast"), MAX_PIXELS)
    assert not np.array_equal(pixels, target)


def test_the_pixels_of_every_encoding_are_compared():
    assert set(TOLERANCES) == set(pictures.ENCODINGS)
    assert set(LAYOUTS) == set(pictures._RAW)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("encoding", [RGB8, BGR8, PNG, JPEG, NV12])
def test_red_stays_red(encoding, order):
    red = np.zeros((24, 32, 3), np.uint8)
    red[..., 2] = 255
    pixels, _ = decode(encode(red, encoding), encoding, (32, 24), order=order)
    first, last = pixels[..., 0].mean(), pixels[..., 2].mean()
    assert (first > 240 and last < 15) if order == "RGB" else (last > 240 and first < 15)


@pytest.mark.parametrize(
    "pixels",
    [
        np.full((10, 12), 99, np.uint8),
        np.full((10, 12, 4), 99, np.uint8),
        np.full((10, 12, 3), 99 << 8, np.uint16),
    ],
    ids=["grey", "alpha", "16-bit"],
)
def test_other_kinds_of_png_become_three_bytes(pixels):
    result, size = decode(cv2.imencode(".png", pixels)[1].tobytes(), PNG, target_size=(12, 10))
    assert size == (12, 10)
    assert set(np.unique(result)) == {99}


@pytest.mark.parametrize("order", ORDERS)
def test_brightness_goes_to_all_three_channels(order):
    brightness = np.arange(32 * 24, dtype=np.uint16).reshape(24, 32).astype(np.uint8)
    pixels, sent_size = decode(brightness.tobytes(), MONO8, (32, 24), order=order)
    assert sent_size == (32, 24)
    for channel in range(3):
        assert np.array_equal(pixels[..., channel], brightness)


def test_a_grey_jpeg_becomes_three_channels():
    result, _ = decode(cv2.imencode(".jpg", np.full((10, 12), 99, np.uint8))[1].tobytes(), JPEG)
    assert np.abs(result.astype(int) - 99).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (1, 40_000), (40_000, 1), (7, 3)])
@pytest.mark.parametrize("encoding", [BGR8, MONO8, PNG, JPEG])
def test_any_shape_is_stretched(encoding, size):
    bgr = np.full((size[1], size[0], 3), 77, np.uint8)
    pixels, sent_size = decode(encode(bgr, encoding), encoding, size)
    assert sent_size == size
    assert np.abs(pixels.astype(int) - 77).max() <= 1


# --- bad input --------------------------------------------------------------------------------------------------------


def png_header(width, height):
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + ihdr + struct.pack(">I", zlib.crc32(ihdr))


def jpeg_with_size(width, height):
    data = bytearray(encode(picture(32, 24), JPEG))
    at = data.index(SOF0) + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize("size", [(65535, 65535), (1_000_001, 1), (2**32 - 1, 2**32 - 1), (1001, 1000)])
def test_a_png_too_large_is_refused_by_its_header_alone(size):
    with pytest.raises(InvalidRequestError, match=f"{size[0]}x{size[1]} pixels exceeds"):
        decode(png_header(*size), PNG)


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0)])
def test_an_empty_png_is_refused_by_its_header_alone(size):
    with pytest.raises(InvalidRequestError, match="empty"):
        decode(png_header(*size), PNG)


@pytest.mark.parametrize("size", [(65500, 65500), (1001, 1000)])
def test_a_jpeg_too_large_is_refused_by_its_header_alone(size):
    data = jpeg_with_size(*size)
    headers_only = data[: data.index(b"\xff\xda") + 14]  # up to the start of the scan: there is nothing to decode
    with pytest.raises(InvalidRequestError, match=f"{size[0]}x{size[1]} pixels exceeds"):
        decode(headers_only, JPEG)


@pytest.mark.parametrize("size", [(0, 0), (0, 24), (32, 0), (65535, 65535)])
def test_a_jpeg_of_a_size_that_libjpeg_does_not_know_is_refused(size):
    with pytest.raises(InvalidRequestError):
        decode(jpeg_with_size(*size), JPEG)


def test_a_picture_at_the_limit_is_taken():
    decode(encode(picture(40, 25), PNG), PNG, max_pixels=1000)
    with pytest.raises(InvalidRequestError):
        decode(encode(picture(40, 25), PNG), PNG, max_pixels=999)


@pytest.mark.parametrize("size", [(64, 48), (33, 24), (32, 33), (200, 200)])
def test_a_jpeg_with_fewer_pixels_than_its_header_says_is_refused(size):
    with pytest.raises(InvalidRequestError, match="truncated"):
        decode(jpeg_with_size(*size), JPEG)


@pytest.mark.parametrize("size", [(32, 25), (33, 24), (3, 3), (64, 48)])
def test_a_png_with_other_pixels_than_its_header_says_is_refused(size):
    data = encode(picture(32, 24), PNG)
    lying = png_header(*size) + data[len(png_header(1, 1)) :]
    try:
        _, sent_size = decode(lying, PNG)
    except InvalidRequestError:
        return
    assert sent_size == size, "libpng takes too much data for less"


def test_a_progressive_jpeg_is_taken_unless_it_has_more_scans_than_any_real_one():
    """A few bytes of a scan cost a pass over the whole picture: 16 MB of them would keep a worker busy for hours."""
    bgr = picture(64, 48)
    progressive = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    assert progressive.count(b"\xff\xda") > 1
    decode(progressive, JPEG)
    last_scan = progressive[progressive.rindex(b"\xff\xda") : -2]
    with pytest.raises(InvalidRequestError, match="scans"):
        decode(progressive[:-2] + last_scan * 100 + b"\xff\xd9", JPEG)


@pytest.mark.parametrize("encoding", [JPEG, PNG])
def test_a_truncated_file_is_refused_wherever_it_ends(encoding):
    data = encode(picture(32, 24), encoding)
    for end in (0, 1, 8, 20, 33, len(data) // 2, len(data) - 4):
        with pytest.raises(InvalidRequestError):
            decode(data[:end], encoding)


@pytest.mark.parametrize(("encoding", "other"), [(JPEG, PNG), (PNG, JPEG), (JPEG, BGR8), (PNG, BGR8)])
def test_another_kind_of_file_is_refused(encoding, other):
    with pytest.raises(InvalidRequestError, match="is not a"):
        decode(encode(picture(32, 24), other), encoding)


def test_broken_files_print_nothing(capfd):
    png = encode(picture(32, 24), PNG)
    flipped = bytearray(png)
    flipped[len(flipped) // 2] ^= 0xFF
    for payload in (png[:40], png[: len(png) // 2], png[:-1], bytes(flipped)):
        with pytest.raises(InvalidRequestError):
            decode(payload, PNG)
    jpeg = encode(picture(32, 24), JPEG)
    for payload in (jpeg[:-4], jpeg[:300], jpeg_with_size(64, 48)):
        with pytest.raises(InvalidRequestError):
            decode(payload, JPEG)
    assert capfd.readouterr() == ("", "")


def only_invalid(payload, encoding):
    with contextlib.suppress(InvalidRequestError):
        decode(payload, encoding)


WHOLE = {encoding: encode(picture(40, 30), encoding) for encoding in (JPEG, PNG)}


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), st.sampled_from([JPEG, PNG]), st.binary(max_size=64))
def test_random_bytes_raise_nothing_but_invalid(data, encoding, junk):
    whole = WHOLE[encoding]
    start = data.draw(st.integers(0, len(whole)))
    only_invalid(junk, encoding)
    only_invalid(whole[:start] + junk, encoding)
    only_invalid(whole[:start] + junk + whole[start + len(junk) :], encoding)
    only_invalid(whole[:33] + junk, encoding)


@given(st.data(), st.binary(min_size=1, max_size=8))
def test_a_png_that_lies_with_right_checksums_raises_nothing_but_invalid(data, junk):
    """The checksums let it through to libpng."""
    whole = bytearray(WHOLE[PNG])
    chunks = []
    start = 8
    while start < len(whole):
        (length,) = struct.unpack_from(">I", whole, start)
        chunks.append((start + 4, start + 8 + length))
        start += 12 + length
    begin, end = data.draw(st.sampled_from(chunks))
    at = data.draw(st.integers(begin, end - 1))
    junk = junk[: end - at]
    whole[at : at + len(junk)] = junk
    whole[end : end + 4] = struct.pack(">I", zlib.crc32(whole[begin:end]))
    only_invalid(bytes(whole), PNG)


def test_thousands_of_mutated_pictures_are_decoded_or_refused_and_print_nothing(capfd):
    for file in mutations(JPEGS, 6000, seed=1):
        only_invalid(file, JPEG)
    for file in mutations(PNGS, 6000, seed=2):
        only_invalid(with_right_checksums(file), PNG)
    assert capfd.readouterr() == ("", "")

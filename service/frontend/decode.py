"""Pictures to rows: JPEG, PNG, RGB8, BGR8 and NV12 into a buffer that already exists, at the model's size.

Pure functions without state. Every dimension is checked before a pixel is decoded. OpenCV and libjpeg-turbo release the
GIL while they work.
"""

import struct
import zlib
from typing import cast

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from forebay.wire import frames_pb2 as pb
from service.errors import InvalidRequestError
from service.models.description import ImageInput

Pixels = NDArray[np.uint8]

RAW_BYTES_PER_PIXEL: dict[int, tuple[int, int]] = {
    pb.ENCODING_RGB8: (3, 1),
    pb.ENCODING_BGR8: (3, 1),
    pb.ENCODING_NV12: (3, 2),
}
MAX_JPEG_SCANS = 64  # progressive files have about ten; each one is a pass over the whole picture
_JPEG_SCAN = b"\xff\xda"
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

_PNG_END = b"IEND"
_PNG_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION  # as sent, like JPEG

cv2.setNumThreads(1)  # the worker pool is the parallelism; nested threads only add wake-ups
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # a client's broken file is no news for our log


def raw_nbytes(encoding: int, width: int, height: int) -> int:
    """Return the payload size of an uncompressed picture."""
    numerator, denominator = RAW_BYTES_PER_PIXEL[encoding]
    return width * height * numerator // denominator


def decode_into(
    target: Pixels, payload: memoryview, encoding: int, size: tuple[int, int], image: ImageInput, max_pixels: int
) -> tuple[int, int]:
    """Decode one picture, stretch it to the model's size and write it to `target`.

    Args:
        target: shape (image.height, image.width, 3), uint8, C-contiguous; written.
        payload: the frame's bytes.
        encoding: forebay.v1 Encoding, not TENSOR.
        size: (width, height) from Open; used for uncompressed encodings only.
        image: what the model takes.
        max_pixels: larger pictures are refused before they are decoded.

    Returns:
        (width, height) of the picture as sent.

    Raises:
        InvalidRequestError: the picture is not what it says or not what may be sent.
    """
    try:
        return _decode_into(target, payload, encoding, size, image, max_pixels)
    except cv2.error:
        raise InvalidRequestError("the picture cannot be decoded; check that the whole file is sent") from None


def _decode_into(
    target: Pixels, payload: memoryview, encoding: int, size: tuple[int, int], image: ImageInput, max_pixels: int
) -> tuple[int, int]:
    if encoding == pb.ENCODING_JPEG:
        source, size = _decode_jpeg(payload, image, max_pixels)
        _stretch(source, target)
        return size
    if encoding == pb.ENCODING_PNG:
        source, size = _decode_png(payload, max_pixels)
        order = "BGR"
    else:
        source, order = _view_raw(payload, encoding, size, image.color_order)
    _stretch(source, target)
    if order != image.color_order:
        cv2.cvtColor(target, cv2.COLOR_RGB2BGR, dst=target)
    return size


def _stretch(source: Pixels, target: Pixels) -> None:
    if source.shape == target.shape:
        np.copyto(target, source)
    else:
        cv2.resize(source, (target.shape[1], target.shape[0]), dst=target, interpolation=cv2.INTER_LINEAR)


def _check_pixels(kind: str, width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise InvalidRequestError(f"{kind} of {width}x{height} pixels is empty; send a picture with pixels in it")
    if width * height > max_pixels:
        raise InvalidRequestError(
            f"{kind} of {width}x{height} pixels exceeds the limit of {max_pixels}; send it smaller"
        )


def _decode_jpeg(payload: memoryview, image: ImageInput, max_pixels: int) -> tuple[Pixels, tuple[int, int]]:
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(payload)
    except ValueError:
        raise InvalidRequestError("payload is not a JPEG file, or its header is broken") from None
    _check_pixels("JPEG", width, height, max_pixels)
    scans = bytes(payload).count(_JPEG_SCAN)  # the marker cannot occur inside compressed data
    if scans > MAX_JPEG_SCANS:
        raise InvalidRequestError(f"JPEG has {scans} scans, more than {MAX_JPEG_SCANS}; send it baseline")
    try:
        pixels = simplejpeg.decode_jpeg(
            payload, image.color_order, min_height=image.height, min_width=image.width, min_factor=1
        )
    except ValueError:
        raise InvalidRequestError("JPEG is truncated or broken; send the whole file") from None
    return pixels, (width, height)


def _decode_png(payload: memoryview, max_pixels: int) -> tuple[Pixels, tuple[int, int]]:
    if bytes(payload[:8]) != _PNG_SIGNATURE or len(payload) < 33 or bytes(payload[12:16]) != b"IHDR":
        raise InvalidRequestError("payload is not a PNG file, or its header is broken")
    width, height = struct.unpack(">II", payload[16:24])
    _check_pixels("PNG", width, height, max_pixels)
    pixels = None
    if _has_whole_chunks(payload):
        try:
            pixels = cv2.imdecode(np.frombuffer(payload, np.uint8), _PNG_FLAGS)
        except cv2.error:
            pixels = None
    if pixels is None or pixels.shape[:2] != (height, width):
        raise InvalidRequestError("PNG is truncated or broken; send the whole file")
    return cast("Pixels", pixels), (width, height)


def _has_whole_chunks(payload: memoryview) -> bool:
    """Whether every chunk of a PNG is there with its checksum. libpng checks too, but prints what it finds."""
    start = len(_PNG_SIGNATURE)
    while start + 12 <= len(payload):
        (length,) = struct.unpack_from(">I", payload, start)
        end = start + 8 + length
        if end + 4 > len(payload) or zlib.crc32(payload[start + 4 : end]) != struct.unpack_from(">I", payload, end)[0]:
            return False
        if bytes(payload[start + 4 : start + 8]) == _PNG_END:
            return True
        start = end + 4
    return False


def _view_raw(payload: memoryview, encoding: int, size: tuple[int, int], color_order: str) -> tuple[Pixels, str]:
    width, height = size
    flat = np.frombuffer(payload, np.uint8)
    if encoding == pb.ENCODING_NV12:
        code = cv2.COLOR_YUV2RGB_NV12 if color_order == "RGB" else cv2.COLOR_YUV2BGR_NV12
        return cast("Pixels", cv2.cvtColor(flat.reshape(height * 3 // 2, width), code)), color_order
    return flat.reshape(height, width, 3), "RGB" if encoding == pb.ENCODING_RGB8 else "BGR"

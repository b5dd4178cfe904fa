"""Pictures to rows: JPEG, PNG, RGB8, BGR8 and NV12 into a buffer that already exists, at the model's size.

Pure functions without state. Every dimension is checked before a pixel is decoded. OpenCV and libjpeg-turbo release the
GIL while they work.
"""

from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from forebay.wire import frames_pb2 as pb
from forebay_server.service.errors import InvalidRequestError
from forebay_server.service.frontend.frames.decode.jpeg import decode_jpeg
from forebay_server.service.frontend.frames.decode.png import decode_png
from forebay_server.service.models.description import ImageInput

Pixels = NDArray[np.uint8]

RAW_BYTES_PER_PIXEL: dict[int, tuple[int, int]] = {
    pb.ENCODING_RGB8: (3, 1),
    pb.ENCODING_BGR8: (3, 1),
    pb.ENCODING_NV12: (3, 2),
}

cv2.setNumThreads(1)  # the worker pool is the parallelism; nested threads only add wake-ups
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # a client's broken file is no event for this log


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
        image: size and colour order of the model's input.
        max_pixels: larger pictures are refused before they are decoded.

    Returns:
        (width, height) of the picture as sent.

    Raises:
        InvalidRequestError: the picture contradicts its header or exceeds a limit.
    """
    try:
        return _decode_into(target, payload, encoding, size, image, max_pixels)
    except cv2.error:
        raise InvalidRequestError("the picture cannot be decoded; check that the whole file is sent") from None


def _decode_into(
    target: Pixels, payload: memoryview, encoding: int, size: tuple[int, int], image: ImageInput, max_pixels: int
) -> tuple[int, int]:
    if encoding == pb.ENCODING_JPEG:
        source, size = decode_jpeg(payload, image, max_pixels)
        _stretch(source, target)
        return size
    if encoding == pb.ENCODING_PNG:
        source, size = decode_png(payload, max_pixels)
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


def _view_raw(payload: memoryview, encoding: int, size: tuple[int, int], color_order: str) -> tuple[Pixels, str]:
    width, height = size
    flat = np.frombuffer(payload, np.uint8)
    if encoding == pb.ENCODING_NV12:
        code = cv2.COLOR_YUV2RGB_NV12 if color_order == "RGB" else cv2.COLOR_YUV2BGR_NV12
        return cast("Pixels", cv2.cvtColor(flat.reshape(height * 3 // 2, width), code)), color_order
    return flat.reshape(height, width, 3), "RGB" if encoding == pb.ENCODING_RGB8 else "BGR"

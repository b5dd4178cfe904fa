"""Frames to rows: files and uncompressed pixels into a buffer that already exists, as the model takes them.

Pure functions without state. Every dimension is checked before a pixel is decoded. OpenCV and libjpeg-turbo release the
GIL while they work.
"""

from collections.abc import Callable
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from forebay.encodings import LAYOUTS
from forebay.wire import frames_pb2 as pb
from forebay_server.service.errors import InvalidRequestError
from forebay_server.service.frontend.frames.decode.jpeg import decode_jpeg
from forebay_server.service.frontend.frames.decode.placing import FrameOrder, place
from forebay_server.service.frontend.frames.decode.png import decode_png
from forebay_server.service.pictures.picture_input import PictureInput

Pixels = NDArray[np.uint8]

cv2.setNumThreads(1)  # the worker pool is the parallelism; nested threads only add wake-ups
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # a client's broken file is no event for this log


def decode_into(
    target: NDArray[Any], payload: memoryview, encoding: int, size: tuple[int, int], picture: PictureInput, most: int
) -> tuple[int, int]:
    """Decode one frame and write it to `target` as the model takes it.

    Args:
        target: of the shape and type of `picture`, C-contiguous; written.
        payload: the frame's bytes.
        encoding: one of ENCODINGS.
        size: (width, height) from Open; used for uncompressed encodings only.
        picture: of the model.
        most: frames with more pixels than this are refused before they are decoded.

    Returns:
        (width, height) of the frame as sent.

    Raises:
        InvalidRequestError: the frame contradicts its header or exceeds a limit.
    """
    wanted: FrameOrder = "BGR" if picture.color_order == "GRAY" else picture.color_order
    try:
        if encoding in _FILES:
            source, order, size = _FILES[encoding](payload, picture, wanted, most)
        else:
            array = np.frombuffer(payload, np.uint8).reshape(LAYOUTS[encoding].shape(*size))
            source, order = _RAW[encoding](array, wanted)
        place(target, source, order, size, picture, most)
    except cv2.error:
        raise InvalidRequestError("the picture cannot be decoded; check that the whole file is sent") from None
    return size


def _jpeg(
    payload: memoryview, picture: PictureInput, wanted: FrameOrder, most: int
) -> tuple[Pixels, FrameOrder, tuple[int, int]]:
    source, size = decode_jpeg(payload, picture, most)
    return source, wanted, size


def _png(
    payload: memoryview, _: PictureInput, _wanted: FrameOrder, most: int
) -> tuple[Pixels, FrameOrder, tuple[int, int]]:
    source, size = decode_png(payload, most)
    return source, "BGR", size


def _nv12(array: Pixels, wanted: FrameOrder) -> tuple[Pixels, FrameOrder]:
    code = cv2.COLOR_YUV2RGB_NV12 if wanted == "RGB" else cv2.COLOR_YUV2BGR_NV12
    return cast("Pixels", cv2.cvtColor(array, code)), wanted


_FILES: dict[int, Callable[[memoryview, PictureInput, FrameOrder, int], tuple[Pixels, FrameOrder, tuple[int, int]]]] = {
    pb.ENCODING_JPEG: _jpeg,
    pb.ENCODING_PNG: _png,
}
"""Encoding -> function of the payload, the model's picture, the wanted order, the limit: pixels, their order, size."""

_RAW: dict[int, Callable[[Pixels, FrameOrder], tuple[Pixels, FrameOrder]]] = {
    pb.ENCODING_RGB8: lambda array, _: (array, "RGB"),
    pb.ENCODING_BGR8: lambda array, _: (array, "BGR"),
    pb.ENCODING_NV12: _nv12,
    pb.ENCODING_MONO8: lambda array, _: (array, "GRAY"),
}
"""Encoding -> function of the array, laid out as in `forebay.encodings`, and the wanted order: pixels, their order."""

ENCODINGS = (*_RAW, *_FILES)
"""Every encoding that `decode_into` takes."""

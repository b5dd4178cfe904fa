"""Pictures to rows: files and uncompressed pixels into a buffer that already exists, at the model's size.

Pure functions without state. Every dimension is checked before a pixel is decoded. OpenCV and libjpeg-turbo release the
GIL while they work.
"""

from collections.abc import Callable
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from forebay.encodings import LAYOUTS
from forebay.wire import frames_pb2 as pb
from forebay_server.service.errors import InvalidRequestError
from forebay_server.service.frontend.frames.decode.jpeg import decode_jpeg
from forebay_server.service.frontend.frames.decode.png import decode_png
from forebay_server.service.pictures.picture_input import ColorOrder, PictureInput

Pixels = NDArray[np.uint8]

cv2.setNumThreads(1)  # the worker pool is the parallelism; nested threads only add wake-ups
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # a client's broken file is no event for this log


def decode_into(
    target: Pixels, payload: memoryview, encoding: int, size: tuple[int, int], image: PictureInput, max_pixels: int
) -> tuple[int, int]:
    """Decode one picture, stretch it to the model's size and write it to `target`.

    Args:
        target: shape (image.height, image.width, 3), uint8, C-contiguous; written.
        payload: the frame's bytes.
        encoding: one of ENCODINGS.
        size: (width, height) from Open; used for uncompressed encodings only.
        image: size and colour order of the model's input.
        max_pixels: larger pictures are refused before they are decoded.

    Returns:
        (width, height) of the picture as sent.

    Raises:
        InvalidRequestError: the picture contradicts its header or exceeds a limit.
    """
    try:
        if encoding in _FILES:
            source, order, size = _FILES[encoding](payload, image, max_pixels)
        else:
            array = np.frombuffer(payload, np.uint8).reshape(LAYOUTS[encoding].shape(*size))
            source, order = _RAW[encoding](array, image.color_order)
        _stretch(source, target)
        if order != image.color_order:
            cv2.cvtColor(target, cv2.COLOR_RGB2BGR, dst=target)
    except cv2.error:
        raise InvalidRequestError("the picture cannot be decoded; check that the whole file is sent") from None
    return size


def _stretch(source: Pixels, target: Pixels) -> None:
    size = (target.shape[1], target.shape[0])
    if source.ndim == 2:  # one channel is stretched before it becomes three: less work and the same pixels
        fits = source.shape == target.shape[:2]
        gray = source if fits else cv2.resize(source, size, interpolation=cv2.INTER_LINEAR)
        cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB, dst=target)
    elif source.shape == target.shape:
        np.copyto(target, source)
    else:
        cv2.resize(source, size, dst=target, interpolation=cv2.INTER_LINEAR)


def _jpeg(payload: memoryview, image: PictureInput, max_pixels: int) -> tuple[Pixels, ColorOrder, tuple[int, int]]:
    source, size = decode_jpeg(payload, image, max_pixels)
    return source, image.color_order, size


def _png(payload: memoryview, _: PictureInput, max_pixels: int) -> tuple[Pixels, ColorOrder, tuple[int, int]]:
    source, size = decode_png(payload, max_pixels)
    return source, "BGR", size


def _nv12(array: Pixels, order: ColorOrder) -> tuple[Pixels, ColorOrder]:
    code = cv2.COLOR_YUV2RGB_NV12 if order == "RGB" else cv2.COLOR_YUV2BGR_NV12
    return cast("Pixels", cv2.cvtColor(array, code)), order


_FILES: dict[int, Callable[[memoryview, PictureInput, int], tuple[Pixels, ColorOrder, tuple[int, int]]]] = {
    pb.ENCODING_JPEG: _jpeg,
    pb.ENCODING_PNG: _png,
}
"""Encoding -> function of the payload, the model's input and the limit: pixels, their order, size as sent."""

_RAW: dict[int, Callable[[Pixels, ColorOrder], tuple[Pixels, ColorOrder]]] = {
    pb.ENCODING_RGB8: lambda array, _: (array, "RGB"),
    pb.ENCODING_BGR8: lambda array, _: (array, "BGR"),
    pb.ENCODING_NV12: _nv12,
    pb.ENCODING_MONO8: lambda array, wanted: (array, wanted),
}
"""Encoding -> function of the array, laid out as in `forebay.encodings`, and the wanted order: pixels, their order."""

ENCODINGS = (*_RAW, *_FILES)
"""Every encoding that `decode_into` takes."""

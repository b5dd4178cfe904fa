"""A frame as a small JPEG for the operator's page, made only when a reader asks. Pure; no thread of the data path."""

from typing import cast

import numpy as np
import simplejpeg

from forebay_server.service.frontend.frames.decode.pictures import decode_into
from forebay_server.service.pictures.picture_input import PictureInput

MAX_SIDE_PIXELS = 640
QUALITY = 80


def preview_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return the (width, height) in which a frame of `size` is shown."""
    scale = min(1.0, MAX_SIDE_PIXELS / max(size))
    width, height = (max(1, round(side * scale)) for side in size)
    return width, height


def preview_jpeg(payload: memoryview, encoding: int, size: tuple[int, int]) -> tuple[bytes, int, int]:
    """Return a JPEG of a frame, its width and its height; the longer side has at most MAX_SIDE_PIXELS.

    It is always encoded again, so other content of the client's file (place, time, maker) is lost.

    Args:
        payload: as the client sent it, already decoded once by the data path.
        encoding: forebay.v1 Encoding, not TENSOR.
        size: (width, height) of the frame as sent.

    Raises:
        InvalidRequestError: the payload cannot be decoded.
    """
    width, height = preview_size(size)
    pixels = np.empty((height, width, 3), np.uint8)
    decode_into(
        pixels, payload, encoding, size, PictureInput(width, height, "RGB", jpeg_scale="fast"), size[0] * size[1]
    )
    return cast("bytes", simplejpeg.encode_jpeg(pixels, quality=QUALITY)), width, height

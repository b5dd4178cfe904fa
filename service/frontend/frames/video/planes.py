"""A decoded picture into the model's size and colours. Pure.

The planes are brought to the size that the model needs and become colours there: one pixel in three of a camera's
picture is never converted. Resizing and the colour matrix are both linear, so the pixels are those of the other order
up to a rounding; the whole takes 1.3 ms for 1280x720 to 416x416, where converting first takes 2 to 7 ms (ADR 0211).

Chroma samples count as lying in the middle of their luma samples. OpenCV releases the GIL while it works.
"""

from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from forebay_server.service.errors import InvalidRequestError
from forebay_server.service.frontend.frames.decode.image_size import check_size
from forebay_server.service.frontend.frames.decode.placing import FrameOrder, place
from forebay_server.service.frontend.frames.video.codec import Picture, Plane
from forebay_server.service.pictures.geometry import placement_of
from forebay_server.service.pictures.picture_input import PictureInput

Pixels = NDArray[np.uint8]

_UNSTATED = 2
_HIGH_DEFINITION_ROWS = 720  # from here on BT.709 is meant where the stream does not say, below it BT.601
_BT601 = (0.299, 0.114)
_BT709 = (0.2126, 0.0722)
_MATRICES: dict[int, tuple[float, float]] = {
    1: _BT709,
    4: (0.30, 0.11),  # FCC
    5: _BT601,  # as BT.470 B and G
    6: _BT601,
    7: (0.212, 0.087),  # SMPTE 240M
    9: (0.2627, 0.0593),  # BT.2020, not of constant luminance
}
"""matrix_coefficients of ITU-T H.273 -> the shares of red and blue in luma."""
_SEMI_PLANAR = ("nv12",)
_FORMATS: dict[str, int] = {
    **dict.fromkeys(("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "gray", "nv12"), 8),
    **dict.fromkeys(("yuv420p10le", "yuv422p10le", "yuv444p10le", "gray10le"), 10),
    **dict.fromkeys(("yuv420p12le", "yuv422p12le", "yuv444p12le", "gray12le"), 12),
}
"""Pixel format of FFmpeg -> bits of a sample."""


@dataclass(frozen=True, slots=True)
class _Colours:
    """How samples of 8 bits become red, green and blue."""

    matrix: int
    is_full_range: bool
    order: FrameOrder


def place_picture(target: NDArray[Any], found: Picture, model: PictureInput, most: int) -> tuple[int, int]:
    """Write a decoded picture as the model takes it.

    Args:
        target: of the shape and type of `model`, C-contiguous; written entirely.
        found: the picture; borrowed.
        model: the picture that the model takes.
        most: pixels that a picture may have.

    Returns:
        (width, height) of the picture.

    Raises:
        InvalidRequestError: it is too large, or of a kind that is not supported.
    """
    check_size("video", found.size, most)
    bits = _FORMATS.get(found.pixel_format)
    if bits is None:
        raise InvalidRequestError(
            f"video has the pixel format {found.pixel_format}, which is not supported; encode it as 4:2:0 of 8 bits"
        )
    order: FrameOrder = "RGB" if model.color_order == "RGB" else "BGR"
    planes = [_sized(plane, _size_of_colours(found, model), bits) for plane in _separate(found)]
    pixels = _coloured(planes, _Colours(_matrix_of(found), found.is_full_range, order))
    place(target, pixels, order, found.size, model, most)
    return found.size


def _size_of_colours(found: Picture, model: PictureInput) -> tuple[int, int]:
    """Return the size at which planes become colours: the smaller one, except where `place` has a filter of its own."""
    resized = placement_of(model, found.size).resized
    is_smaller = resized[0] * resized[1] < found.size[0] * found.size[1]
    return resized if is_smaller and model.interpolation == "opencv" else found.size


def _separate(found: Picture) -> tuple[Plane, ...]:
    if found.pixel_format not in _SEMI_PLANAR:
        return found.planes
    luma, chroma = found.planes
    return luma, chroma[:, 0::2], chroma[:, 1::2]


def _sized(plane: Plane, size: tuple[int, int], bits: int) -> Pixels:
    """Bring a plane to a size and to 8 bits."""
    sized: Any = plane
    if (plane.shape[1], plane.shape[0]) != size:
        sized = cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR)
    if bits > 8:
        sized = cv2.convertScaleAbs(sized, alpha=1 / (1 << (bits - 8)))
    return cast("Pixels", sized)


def _matrix_of(found: Picture) -> int:
    if found.matrix == _UNSTATED or len(found.planes) == 1:
        return 1 if found.size[1] >= _HIGH_DEFINITION_ROWS else 6
    if found.matrix not in _MATRICES:
        raise InvalidRequestError(
            f"video has the matrix_coefficients {found.matrix}, which are not supported; encode it as BT.709 or BT.601"
        )
    return found.matrix


def _coloured(planes: list[Pixels], colours: _Colours) -> Pixels:
    """Return shape (height, width, 3)."""
    red, blue = _MATRICES[colours.matrix]
    green = 1 - red - blue
    scale, offset, span = (1.0, 0.0, 255.0) if colours.is_full_range else (255 / 219, 16.0, 224.0)
    v_of_red, u_of_blue = 2 * (1 - red) * 255 / span, 2 * (1 - blue) * 255 / span
    rows = [
        [scale, 0.0, v_of_red],
        [scale, -u_of_blue * blue / green, -v_of_red * red / green],
        [scale, u_of_blue, 0.0],
    ]
    if len(planes) == 1:
        planes = [planes[0], *[np.full_like(planes[0], 128)] * 2]
    matrix = np.array([[*row, -offset * scale - 128 * (row[1] + row[2])] for row in rows], np.float32)
    if colours.order == "BGR":
        matrix = matrix[::-1]
    return cast("Pixels", cv2.transform(cv2.merge(planes), np.ascontiguousarray(matrix)))

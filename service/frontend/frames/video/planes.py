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

from forebay_server.engines.pictures import matrix_of
from forebay_server.service.errors import InvalidRequestError
from forebay_server.service.frontend.frames.decode.image_size import check_size
from forebay_server.service.frontend.frames.decode.placing import FrameOrder, place
from forebay_server.service.pictures.geometry import placement_of
from forebay_server.service.pictures.picture_input import PictureInput

Pixels = NDArray[np.uint8]
Plane = NDArray[np.uint8] | NDArray[np.uint16]

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


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A decoded picture in host memory. It borrows the decoder's memory; drop it soon.

    Attributes:
        number: of its access unit.
        pixel_format: FFmpeg's name, such as yuv420p.
        size: (width, height) in pixels, cropped as the stream says.
        matrix: matrix_coefficients of ITU-T H.273; 2 where the stream does not say.
        is_full_range: whether luma is 0 to 255 and not 16 to 235.
        planes: Y, U and V, or Y alone, or Y and interleaved UV: shape (rows, samples), 8 or 16 bits.
        is_damaged: parts of it are guessed.
    """

    number: int
    pixel_format: str
    size: tuple[int, int]
    matrix: int
    is_full_range: bool
    planes: tuple[Plane, ...]
    is_damaged: bool

    def place(self, target: NDArray[Any], model: PictureInput, most: int) -> tuple[int, int]:
        """See place_picture."""
        return place_picture(target, self, model, most)


@dataclass(frozen=True, slots=True)
class _Colours:
    """How samples of 8 bits become red, green and blue."""

    shares: tuple[float, float]
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
    shares = shares_of(_UNSTATED if len(planes) == 1 else found.matrix, found.size[1])
    pixels = _coloured(planes, _Colours(shares, found.is_full_range, order))
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


def shares_of(matrix: int, rows: int) -> tuple[float, float]:
    """Return the shares of red and of blue in luma.

    Args:
        matrix: matrix_coefficients of ITU-T H.273; 2 where the stream does not say.
        rows: pixels of the picture's height.

    Raises:
        InvalidRequestError: the matrix is not supported.
    """
    if matrix == _UNSTATED:
        return _BT709 if rows >= _HIGH_DEFINITION_ROWS else _BT601
    if matrix not in _MATRICES:
        raise InvalidRequestError(
            f"video has the matrix_coefficients {matrix}, which are not supported; encode it as BT.709 or BT.601"
        )
    return _MATRICES[matrix]


def _coloured(planes: list[Pixels], colours: _Colours) -> Pixels:
    """Return shape (height, width, 3)."""
    if len(planes) == 1:
        planes = [planes[0], *[np.full_like(planes[0], 128)] * 2]
    matrix = matrix_of(colours.shares, is_full_range=colours.is_full_range)
    if colours.order == "BGR":
        matrix = matrix[::-1]
    return cast("Pixels", cv2.transform(cv2.merge(planes), np.ascontiguousarray(matrix)))

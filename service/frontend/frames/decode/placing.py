"""A frame's pixels into the model's picture: resized, cut or padded, and in the model's colours and numbers.

Pure functions; `service.pictures.geometry` says where the pixels go. Stretched uint8 pictures, channels last, are
resized straight into the target; everything else takes one picture of bytes between. Frames of one channel are resized
before they become three: less work and the same pixels. OpenCV releases the GIL while it works.
"""

from typing import Any, Literal, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from forebay_server.service.errors import InvalidRequestError
from forebay_server.service.frontend.frames.decode.antialiased import resize_antialiased
from forebay_server.service.frontend.frames.decode.values import pad, write_values
from forebay_server.service.pictures.geometry import Placement, placement_of
from forebay_server.service.pictures.picture_input import ColorOrder, PictureInput

Pixels = NDArray[np.uint8]
FrameOrder = Literal["RGB", "BGR", "GRAY"]

_CONVERSIONS = {
    ("RGB", "BGR"): cv2.COLOR_RGB2BGR,
    ("BGR", "RGB"): cv2.COLOR_BGR2RGB,
    ("RGB", "GRAY"): cv2.COLOR_RGB2GRAY,
    ("BGR", "GRAY"): cv2.COLOR_BGR2GRAY,
    ("GRAY", "RGB"): cv2.COLOR_GRAY2RGB,
    ("GRAY", "BGR"): cv2.COLOR_GRAY2BGR,
}


def place(
    target: NDArray[Any], source: Pixels, order: FrameOrder, size: tuple[int, int], picture: PictureInput, most: int
) -> None:
    """Write the model's picture of a frame.

    Args:
        target: of the shape and type of `picture`, C-contiguous; written entirely.
        source: shape (height, width, 3) or (height, width) for one channel; of the frame, perhaps decoded at a reduced
            size; borrowed.
        order: of its channels.
        size: (width, height) of the frame as sent.
        picture: of the model.
        most: pixels that a frame may have once it is resized.

    Raises:
        InvalidRequestError: resizing would make too many pixels.
    """
    values = picture.values
    is_direct = values.layout == "NHWC" and values.dtype == "uint8"
    if is_direct and picture.resize == "stretch" and picture.interpolation == "opencv":
        _resize_into(target, source, order, picture.color_order)
        return
    placement = placement_of(picture, size)
    if placement.resized[0] * placement.resized[1] > max(most, picture.width * picture.height):
        raise InvalidRequestError(
            f"the picture of {size[0]}x{size[1]} pixels would have {placement.resized[0]}x{placement.resized[1]} once "
            f"its shorter side fits the model, which exceeds the limit of {most} pixels; send a less narrow one"
        )
    rows, seen_rows = _window(placement.top, placement.resized[1], picture.height)
    columns, seen_columns = _window(placement.left, placement.resized[0], picture.width)
    inner = target[rows, columns] if values.layout == "NHWC" else target[:, rows, columns]
    if is_direct and picture.interpolation == "opencv" and _is_whole(placement, picture):
        _resize_into(cast("Pixels", inner), source, order, picture.color_order)
    else:
        pixels = _resized(source, placement, picture, seen_rows, seen_columns)
        pixels, is_swapped = _coloured(pixels, order, picture.color_order)
        write_values(inner, pixels, values, is_swapped=is_swapped)
    if inner.size != target.size:
        pad(target, (rows, columns), values, picture.pad_value)


def _window(offset: int, resized: int, side: int) -> tuple[slice, slice]:
    """On one axis: the model's pixels that the frame covers, and the frame's resized pixels that are seen."""
    first, last = max(0, offset), min(side, offset + resized)
    return slice(first, last), slice(first - offset, last - offset)


def _is_whole(placement: Placement, picture: PictureInput) -> bool:
    """Whether no part of the frame is cut."""
    return (
        min(placement.left, placement.top) >= 0
        and placement.left + placement.resized[0] <= picture.width
        and placement.top + placement.resized[1] <= picture.height
    )


def _resize_into(target: Pixels, source: Pixels, order: FrameOrder, wanted: ColorOrder) -> None:
    """Resize to the size of `target`, shape (height, width, channels), bilinearly, and convert there."""
    size = (target.shape[1], target.shape[0])
    fits = source.shape[:2] == target.shape[:2]
    if "GRAY" in {order, wanted} and order != wanted:  # another number of channels
        pixels = source if fits else cv2.resize(source, size, interpolation=cv2.INTER_LINEAR)
        cv2.cvtColor(pixels, _CONVERSIONS[order, wanted], dst=target if target.shape[2] == 3 else target[..., 0])
        return
    into = target if source.ndim == 3 else target[..., 0]
    if fits:
        np.copyto(into, source)
    else:
        cv2.resize(source, size, dst=into, interpolation=cv2.INTER_LINEAR)
    if order != wanted:
        cv2.cvtColor(into, cv2.COLOR_RGB2BGR, dst=into)


def _resized(source: Pixels, placement: Placement, picture: PictureInput, rows: slice, columns: slice) -> Pixels:
    """Lines and columns of the frame in model pixels."""
    if (source.shape[1], source.shape[0]) == placement.resized:
        return source[rows, columns]
    if picture.interpolation != "opencv":
        return resize_antialiased(source, placement.resized, rows, columns, picture.interpolation)
    resized = cv2.resize(source, placement.resized, interpolation=cv2.INTER_LINEAR)
    return cast("Pixels", resized[rows, columns])


def _coloured(pixels: Pixels, order: FrameOrder, wanted: ColorOrder) -> tuple[Pixels, bool]:
    """The pixels in the model's channels, and whether their first and last are still to be swapped."""
    if order == wanted:
        return pixels, False
    if "GRAY" in {order, wanted}:
        return cast("Pixels", cv2.cvtColor(pixels, _CONVERSIONS[order, wanted])), False
    return pixels, True

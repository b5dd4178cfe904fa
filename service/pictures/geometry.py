"""Where a frame's pixels lie in a model's picture, and the way back. Pure. Thread: any.

Decoding and results both ask `placement_of`, so that they always agree. Coordinates are continuous: pixel 0 spans 0..1,
so a frame of width w spans 0..w.

The rules are those of the programs that models are trained with, and so are their roundings, since a pixel more or less
of padding moves every box:

- letterbox (Ultralytics): r = min(W/w, H/h), sides round(w r) and round(h r), the odd pixel of padding at the bottom
  and the right. The scale of an axis is that of its rounded side: with r alone, boxes are up to half a model pixel off.
- center_crop (torchvision): the shorter side becomes `resize_to`, the longer one is rounded down, and the middle is
  kept.

Python's `round` takes the even neighbour of a half, as both programs do.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forebay_server.service.pictures.picture_input import PictureInput

Size = tuple[int, int]  # (width, height) in pixels


@dataclass(frozen=True, slots=True)
class Placement:
    """A pixel of the model's picture is `frame pixel * scale + offset`.

    Attributes:
        scale_x: model pixels for each frame pixel.
        scale_y: likewise; differs from scale_x where frames are stretched, and by the rounding of sides where not.
        left: model pixels between the picture's left side and the frame's; negative where the frame is cut.
        top: model pixels between their upper sides; negative where the frame is cut.
        resized: (width, height) of the whole frame in model pixels, including the parts that are cut.
    """

    scale_x: float
    scale_y: float
    left: int
    top: int
    resized: Size

    def to_model(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """Return points of the frame in model pixels.

        Args:
            points: shape (..., 2), x and y; borrowed.
        """
        return np.asarray(points, np.float64) * (self.scale_x, self.scale_y) + (self.left, self.top)

    def to_frame(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """Return points of the model's picture in frame pixels; points of the padding lie outside the frame.

        Args:
            points: shape (..., 2), x and y; borrowed. Boxes are two such points: reshape (n, 4) to (n, 2, 2).
        """
        return (np.asarray(points, np.float64) - (self.left, self.top)) / (self.scale_x, self.scale_y)


def placement_of(picture: PictureInput, frame_size: Size) -> Placement:
    """Return where a frame lies in the picture.

    Args:
        picture: of the model.
        frame_size: (width, height) in pixels of the frame as sent, at least 1 each.
    """
    width, height = frame_size
    if picture.resize == "stretch":
        sides = (picture.width, picture.height)
        return Placement(picture.width / width, picture.height / height, 0, 0, sides)
    if picture.resize == "letterbox":
        scale = min(picture.width / width, picture.height / height)
        resized = (max(1, round(width * scale)), max(1, round(height * scale)))
    elif picture.resize == "center_crop":
        resized = _covering(picture, frame_size)
    else:
        resized = frame_size
    left, top = _offset(picture, picture.width, resized[0]), _offset(picture, picture.height, resized[1])
    return Placement(resized[0] / width, resized[1] / height, left, top, resized)


def _covering(picture: PictureInput, frame_size: Size) -> Size:
    width, height = frame_size
    if picture.resize_to is None:
        scale = max(picture.width / width, picture.height / height)
        return max(picture.width, int(width * scale)), max(picture.height, int(height * scale))
    shorter, longer = min(frame_size), max(frame_size)
    long_side = picture.resize_to * longer // shorter
    return (picture.resize_to, long_side) if width <= height else (long_side, picture.resize_to)


def _offset(picture: PictureInput, side: int, resized: int) -> int:
    """Model pixels before the frame on one axis: of padding, or, negative, of the frame that is cut."""
    if picture.pad_at == "bottom_right" and picture.resize != "center_crop":
        return 0
    if resized > side:
        return -round((resized - side) / 2)
    return (side - resized) // 2

"""The way from a model's picture back to the frame as the client sent it: boxes, points and rotated boxes. Pure."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from forebay_server.service.errors import CorruptResultError
from forebay_server.service.pictures.geometry import Placement, placement_of
from forebay_server.service.pictures.picture_input import PictureInput
from forebay_server.service.results.arrays import quiet

Floats = NDArray[np.floating[Any]]

_IDENTITY = Placement(1.0, 1.0, 0, 0, (1, 1))


class FrameMap(NamedTuple):
    """Where one frame lies in the model's picture.

    Attributes:
        width: of the frame in pixels.
        height: as width.
        picture: of the model; None if the frame is the model's picture.
    """

    width: int
    height: int
    picture: PictureInput | None

    @property
    def placement(self) -> Placement:
        """Of the frame in the model's picture."""
        return _IDENTITY if self.picture is None else placement_of(self.picture, (self.width, self.height))

    @property
    def model_size(self) -> tuple[int, int]:
        """Width and height of the model's picture in pixels."""
        picture = self.picture
        return (self.width, self.height) if picture is None else (picture.width, picture.height)

    @quiet
    def fractions(self, boxes: Floats, *, is_unit: bool) -> Floats:
        """Return boxes [n, 4] as 0..1 of the frame's width and height, not clipped.

        Args:
            boxes: x_min, y_min, x_max, y_max in the model's picture; borrowed.
            is_unit: whether boxes are 0..1 of it rather than its pixels.
        """
        if is_unit and (self.picture is None or self.picture.resize == "stretch"):
            return boxes  # the frame fills the picture: 0..1 of one is 0..1 of the other
        place = self.placement
        across, down = place.scale_x * self.width, place.scale_y * self.height  # the frame's sides in model pixels
        wide, high = self.model_size if is_unit else (1, 1)
        mapped: Floats = boxes * np.array((wide / across, high / down) * 2, np.float32)
        if place.left or place.top:
            mapped -= np.array((place.left / across, place.top / down) * 2, np.float32)
        return mapped

    def points(self, points: Floats) -> Floats:
        """Return points [..., 2] of the model's picture in pixels of the frame, clipped to it."""
        return np.clip(self.placement.to_frame(points), 0.0, (self.width, self.height))

    @quiet
    def rotated(self, boxes: Floats, angles: Floats) -> Floats:
        """Return rotated boxes in pixels of the frame, not clipped.

        A stretched rectangle is a parallelogram. The result keeps its center, the direction of its width, and its area.
        Without stretching the angle is kept, though the scales of both axes differ by the rounding of the sides.

        Args:
            boxes: [n, 4]: center x, center y, width, height in pixels of the model's picture; borrowed.
            angles: [n] radians.

        Returns:
            [n, 5]: center x, center y, width, height, angle.
        """
        place = self.placement
        mapped = np.empty((len(boxes), 5), np.float64)
        mapped[:, :2] = place.to_frame(boxes[:, :2])
        if self.picture is None or self.picture.resize != "stretch":
            mapped[:, 2:4] = boxes[:, 2:] / (place.scale_x, place.scale_y)
            mapped[:, 4] = angles
            return mapped
        along_x, along_y = np.cos(angles) / place.scale_x, np.sin(angles) / place.scale_y
        stretch = np.hypot(along_x, along_y)
        mapped[:, 2] = boxes[:, 2] * stretch
        mapped[:, 3] = boxes[:, 3] / (stretch * (place.scale_x * place.scale_y))
        mapped[:, 4] = np.arctan2(along_y, along_x)
        return mapped


def frame_map(picture: PictureInput | None, frame_size: tuple[int, int], *, is_unit: bool) -> FrameMap:
    """Return where a frame lies.

    Args:
        picture: of the model; None if it takes no pictures, and the frame counts as the model's picture.
        frame_size: width and height in pixels as sent; zeros for tensors of a model without pictures.
        is_unit: whether the model's boxes are 0..1 of its picture.

    Raises:
        CorruptResultError: boxes are in pixels of a picture that has no known size.
    """
    width, height = frame_size
    if is_unit or (width and height):
        return FrameMap(width, height, picture if width and height else None)
    raise CorruptResultError("boxes are in pixels of the model's picture, but the frame has no size: send pictures")

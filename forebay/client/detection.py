"""One object that a model found: its box, and its keypoints, rotated box, mask and track where it has them.

All classes here are plain frozen values.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle; x to the right, y down."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float


@dataclass(frozen=True, slots=True)
class Keypoint:
    """One named point of an object, in pixels of the frame as sent; `score` (0..1) says how sure the model is of it."""

    x: float
    y: float
    score: float


@dataclass(frozen=True, slots=True)
class RotatedBox:
    """A rectangle turned about its center, in pixels of the frame as sent; it may reach beyond the frame.

    Attributes:
        cx: center.
        cy: center.
        width: along the direction of the angle.
        height: across it.
        angle_radians: from the x axis towards the y axis, which grows downwards: clockwise as seen.
    """

    cx: float
    cy: float
    width: float
    height: float
    angle_radians: float

    @property
    def corners(self) -> tuple[tuple[float, float], ...]:
        """The four corners (x, y) in order around the rectangle."""
        cos, sin = math.cos(self.angle_radians) / 2, math.sin(self.angle_radians) / 2
        along, across = (self.width * cos, self.width * sin), (-self.height * sin, self.height * cos)
        return tuple(
            (self.cx + a * along[0] + b * across[0], self.cy + a * along[1] + b * across[1])
            for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))
        )


@dataclass(frozen=True, slots=True)
class RunLengths:
    """A mask as COCO writes it, uncompressed.

    Attributes:
        width: of the frame, pixels.
        height: of the frame, pixels.
        counts: pixels outside, inside, outside, ... in turn, down each column from the left.
    """

    width: int
    height: int
    counts: tuple[int, ...]

    def to_array(self) -> NDArray[np.bool_]:
        """Return the mask, shape (height, width). Raises ValueError if the counts do not fit the size."""
        if sum(self.counts) != self.width * self.height:
            raise ValueError(f"the counts of a mask add up to {sum(self.counts)}, not {self.width} x {self.height}")
        inside = np.arange(len(self.counts)) % 2 == 1
        return np.repeat(inside, self.counts).reshape(self.width, self.height).T


@dataclass(frozen=True, slots=True, eq=False)  # arrays have no truth value: masks compare by identity
class Mask:
    """The pixels of one object, in the form that the stream asked for.

    Attributes:
        polygons: outlines without holes, the largest first: arrays of shape (points, 2), x and y in pixels, read-only.
        run_lengths: None unless the stream was opened with `masks="run_lengths"`.
    """

    polygons: tuple[NDArray[np.float32], ...] = ()
    run_lengths: RunLengths | None = None


@dataclass(frozen=True, slots=True)
class Detection:
    """One object.

    Attributes:
        label: name of its class.
        class_id: number of its class.
        score: 0..1.
        box: in 0..1 of the frame's width and height.
        box_pixels: the same in pixels of the frame as sent.
        keypoints: of a pose model, in the order of `Opened.keypoint_names`; else empty.
        rotated_box: of a model for oriented boxes; else None.
        mask: of a segmentation model, if the stream was opened with `masks`; else None.
        track_id: the same number for one object through a stream that was opened with `track=True`; 0 for an object
            that is not tracked, or was seen once so far.
    """

    label: str
    class_id: int
    score: float
    box: Box
    box_pixels: Box
    keypoints: tuple[Keypoint, ...] = ()
    rotated_box: RotatedBox | None = None
    mask: Mask | None = None
    track_id: int = 0

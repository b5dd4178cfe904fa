"""Typed detections: values only, in the coordinates of the frame as the client sent it. Thread: any (immutable)."""

from typing import NamedTuple


class Box(NamedTuple):
    """Corners of a rectangle; y grows downwards."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float


class Keypoint(NamedTuple):
    """One named point of an object, such as an elbow.

    Attributes:
        x: pixels of the frame, clipped to it.
        y: as x.
        score: 0..1, the model's belief that the point is visible; 1 where the model gives none.
    """

    x: float
    y: float
    score: float


class RotatedBox(NamedTuple):
    """A rectangle that is turned about its center; it may reach beyond the frame.

    Attributes:
        cx: center in pixels of the frame.
        cy: as cx.
        width: pixels, along the direction of the angle.
        height: pixels, across it.
        angle_radians: from the x axis towards the y axis, which grows downwards: clockwise as seen.
    """

    cx: float
    cy: float
    width: float
    height: float
    angle_radians: float


Polygon = tuple[float, ...]
"""x0, y0, x1, y1, ... in pixels of the frame, at least three points; the last one joins the first."""


class RunLengths(NamedTuple):
    """A mask as COCO writes it: lengths of runs over the columns from the left, each from the top.

    Attributes:
        width: of the frame in pixels.
        height: as width.
        counts: pixels outside, inside, outside, ... in turn; the sum is width * height.
    """

    width: int
    height: int
    counts: tuple[int, ...]


class Mask(NamedTuple):
    """The pixels of one object, in the form that the stream asked for.

    Attributes:
        polygons: outlines without holes, the largest first; one object may have several.
        run_lengths: None unless asked for.
    """

    polygons: tuple[Polygon, ...] = ()
    run_lengths: RunLengths | None = None


class Detection(NamedTuple):
    """One detected object.

    Attributes:
        label: name of its class.
        class_id: number of its class.
        score: 0..1.
        box: 0..1 of the frame's width and height, clipped to it.
        box_pixels: the same in pixels of the frame as the client sent it.
        keypoints: in the order of the model's `keypoint_names`; empty unless the model is a pose model.
        rotated_box: of an oriented model, whose `box` is the upright rectangle around it.
        mask: of a segmentation model, if the stream asked for masks.
        track_id: the same number for one object through a stream; 0 without tracking.
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

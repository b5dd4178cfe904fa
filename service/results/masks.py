"""Masks of objects from coefficients and prototypes, as polygons or run lengths. Pure.

A mask is where the sum of prototypes, each times the object's coefficient, is above 0 (its sigmoid above 0.5), within
the object's box. A prototype's side is a quarter of the side of the model's picture. The sum is interpolated only
within the box: to pixels of the model's picture for polygons, whose cost then does not depend on the frame, and to
pixels of the frame for run lengths.

Pixels and numbers of a frame have limits: beyond them, the detections with the lowest scores come without a mask.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from forebay_server.service.results.arrays import check_finite, quiet
from forebay_server.service.results.detection import Box, Mask, Polygon
from forebay_server.service.results.frame_map import FrameMap
from forebay_server.service.results.heads.candidates import Floats
from forebay_server.service.results.options import MaskFormat
from forebay_server.service.results.run_lengths import run_lengths_of

MAX_POLYGONS = 16
"""Of one object, the largest: an object is seldom in more pieces."""
MAX_POINTS = 256
"""Of one polygon."""
LEAST_TOLERANCE_PIXELS = 0.75
"""By which a simplified outline may differ, in pixels of the model's picture, of which a prototype's pixel has four."""


class MaskLimits(NamedTuple):
    """Bounds of all masks of one frame together.

    Attributes:
        pixels: that are interpolated; the default are four pictures of 8 megapixels, about 0.3 s of CPU time.
        numbers: coordinates or runs; the default is about 1 MB in a result.
    """

    pixels: int = 1 << 25
    numbers: int = 1 << 18


LIMITS = MaskLimits()


@dataclass(frozen=True, slots=True)
class _Grid:
    """Pixels in which masks are made, `prototype pixel = grid pixel * scale + offset` on each axis.

    Attributes:
        width: of the whole grid.
        height: as width.
        scale_x: prototype pixels for each grid pixel.
        scale_y: as scale_x.
        offset_x: prototype pixels.
        offset_y: as offset_x.
        frame_pixels: pixels of the frame for each grid pixel, on both axes.
    """

    width: int
    height: int
    scale_x: float
    scale_y: float
    offset_x: float
    offset_y: float
    frame_pixels: tuple[float, float]


def make_masks(
    coefficients: Floats,
    prototypes: NDArray[Any],
    boxes: NDArray[Any],
    where: FrameMap,
    form: MaskFormat,
    limits: MaskLimits = LIMITS,
) -> list[Mask | None]:
    """Return the mask of each object, None beyond the bounds or where nothing is above 0.

    Args:
        coefficients: [n, m] by falling score.
        prototypes: [m, h, w] over the whole of the model's picture.
        boxes: [n, 4]: x_min, y_min, x_max, y_max, 0..1 of the frame, clipped to it.
        where: the frame lies in the model's picture.
        form: not none.
        limits: beyond them, the remaining objects have no mask.

    Raises:
        CorruptResultError: a number is not finite.
    """
    check_finite(coefficients, "mask coefficients")
    grid = _grid_of(prototypes, where, form)
    pixels, numbers = limits
    masks: list[Mask | None] = []
    for weights, box in zip(coefficients, boxes.tolist(), strict=True):
        region = _region(Box(*box), grid)
        pixels -= (region[2] - region[0]) * (region[3] - region[1])
        if pixels < 0:
            break
        mask = _mask(_inside(weights, prototypes, grid, region), region, grid, form)
        numbers -= _count(mask)
        if numbers < 0:
            break
        masks.append(mask)
    return masks + [None] * (len(boxes) - len(masks))


def _grid_of(prototypes: NDArray[Any], where: FrameMap, form: MaskFormat) -> _Grid:
    """Return the pixels of the frame, or of the part of the model's picture where the frame lies."""
    place = where.placement
    model_width, model_height = where.model_size
    across, down = prototypes.shape[2] / model_width, prototypes.shape[1] / model_height
    width, height = where.width, where.height
    if form == "polygons":  # whole pixels of about the size of the model's
        width, height = max(1, round(width * place.scale_x)), max(1, round(height * place.scale_y))
    frame_pixels = where.width / width, where.height / height
    return _Grid(
        width,
        height,
        frame_pixels[0] * place.scale_x * across,
        frame_pixels[1] * place.scale_y * down,
        place.left * across,
        place.top * down,
        frame_pixels,
    )


def _region(box: Box, grid: _Grid) -> tuple[int, int, int, int]:
    """Return the grid pixels whose centers lie in a box: left, top, right, bottom."""
    return (
        math.ceil(box.x_min * grid.width - 0.5),
        math.ceil(box.y_min * grid.height - 0.5),
        math.ceil(box.x_max * grid.width - 0.5),
        math.ceil(box.y_max * grid.height - 0.5),
    )


@quiet
def _inside(
    weights: Floats, prototypes: NDArray[Any], grid: _Grid, region: tuple[int, int, int, int]
) -> NDArray[np.bool_]:
    """Return where the weighted sum is above 0, interpolated between the centers of prototype pixels."""
    left, top, right, bottom = region
    if right <= left or bottom <= top:
        return np.zeros((0, 0), np.bool_)
    # prototype coordinates of the first grid pixel's center, counted from the center of prototype pixel 0
    start_x = (left + 0.5) * grid.scale_x + grid.offset_x - 0.5
    start_y = (top + 0.5) * grid.scale_y + grid.offset_y - 0.5
    first_x, last_x = _span(start_x, (right - left) * grid.scale_x, prototypes.shape[2])
    first_y, last_y = _span(start_y, (bottom - top) * grid.scale_y, prototypes.shape[1])
    part = prototypes[:, first_y:last_y, first_x:last_x].astype(np.float32, copy=False)
    check_finite(part, "mask prototypes")
    # not by linear algebra, whose library would wake threads of its own for a large part
    total = np.einsum("m,mhw->hw", weights, part)
    matrix = np.array([[grid.scale_x, 0, start_x - first_x], [0, grid.scale_y, start_y - first_y]])
    enlarged = cv2.warpAffine(
        total,
        matrix,
        (right - left, bottom - top),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.greater(enlarged, 0.0)


def _span(start: float, length: float, size: int) -> tuple[int, int]:
    """Return the prototype pixels that an interpolation between `start` and its end reads."""
    first = min(max(math.floor(start), 0), size - 1)
    return first, max(first + 1, min(size, math.ceil(start + length) + 1))


def _mask(inside: NDArray[np.bool_], region: tuple[int, int, int, int], grid: _Grid, form: MaskFormat) -> Mask | None:
    if not inside.any():
        return None
    if form == "run_lengths":
        return Mask(run_lengths=run_lengths_of(inside, region[0], region[1], grid.width, grid.height))
    return Mask(polygons=_polygons(inside, region[:2], grid))


def _polygons(inside: NDArray[np.bool_], origin: tuple[int, int], grid: _Grid) -> tuple[Polygon, ...]:
    found, _ = cv2.findContours(inside.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    outlines = sorted(found, key=cv2.contourArea, reverse=True)[:MAX_POLYGONS]
    return tuple(
        [tuple(((_simplified(outline) + origin + 0.5) * grid.frame_pixels).ravel().tolist()) for outline in outlines]
    )


def _simplified(outline: NDArray[Any]) -> NDArray[Any]:
    """Return an outline [n, 2] of 3 to MAX_POINTS points."""
    tolerance = LEAST_TOLERANCE_PIXELS
    points = cv2.approxPolyDP(outline, tolerance, closed=True)
    while len(points) > MAX_POINTS:
        tolerance *= 2
        points = cv2.approxPolyDP(outline, tolerance, closed=True)
    points = points[:, 0]
    if len(points) >= 3:
        return points
    # a point or a line: the rectangle of its pixels
    left, top, width, height = cv2.boundingRect(outline)
    right, bottom = left + width, top + height
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)]) - 0.5


def _count(mask: Mask | None) -> int:
    if mask is None:
        return 0
    return sum(map(len, mask.polygons)) + (0 if mask.run_lengths is None else len(mask.run_lengths.counts))

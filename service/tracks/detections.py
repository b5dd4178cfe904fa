"""Checks and orders the detections of one frame before they are tracked."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from forebay_server.service.tracks.motion import Floats, to_centres

MAX_DETECTIONS = 1000
"""Of one frame that are tracked, those with the highest scores; as many as suppression looks at."""
FARTHEST = 1e7
"""Largest coordinate, in the unit of the boxes: differences stay exact to one unit in float32, squares finite."""
SMALLEST = 1e-5
"""Least width and height."""
LARGEST_CLASS = 2**31 - 1


class Detections(NamedTuple):
    """The usable detections of one frame, in an order that does not depend on the order of the input.

    Attributes:
        rows: index of each in the input, shape (n,).
        position: centre x, centre y, width, height; shape (n, 4).
        scores: shape (n,).
        classes: shape (n,).
    """

    rows: NDArray[np.intp]
    position: Floats
    scores: Floats
    classes: NDArray[np.int32]


def usable(
    boxes: NDArray[np.floating[Any]],
    scores: NDArray[np.floating[Any]],
    classes: NDArray[np.integer[Any]],
    least_score: float,
) -> Detections:
    """Return the detections that can be tracked: finite, not empty, with a score from `least_score` on.

    Args:
        boxes: x1, y1, x2, y2; shape (n, 4).
        scores: shape (n,).
        classes: shape (n,).
        least_score: lower scores are left out.

    Raises:
        ValueError: shapes that do not fit together.
    """
    with np.errstate(over="ignore"):  # a wider float that does not fit becomes infinite, and is left out
        corners, scores = np.asarray(boxes, np.float32), np.asarray(scores, np.float32)
    classes = np.asarray(classes)
    if corners.shape != (len(corners), 4) or not len(corners) == len(scores) == len(classes):
        raise ValueError(
            f"boxes {np.shape(boxes)}, scores {np.shape(scores)} and classes {np.shape(classes)} do not fit: "
            "they must be (n, 4), (n,) and (n,)"
        )
    with np.errstate(invalid="ignore", over="ignore"):  # of NaN and of infinities, which fail every comparison
        is_usable = (
            (np.abs(corners) <= FARTHEST).all(1)
            & (corners[:, 2] - corners[:, 0] >= SMALLEST)
            & (corners[:, 3] - corners[:, 1] >= SMALLEST)
            & (scores >= np.float32(least_score))
            & (np.abs(scores) <= 1)
            & (classes >= 0)
            & (classes <= LARGEST_CLASS)
        )
    rows = np.flatnonzero(is_usable)
    corners, scores, classes = corners[rows], scores[rows], classes[rows]
    order = np.lexsort((*corners.T, classes, -scores))[:MAX_DETECTIONS]
    return Detections(rows[order], to_centres(corners[order]), scores[order], classes[order].astype(np.int32))

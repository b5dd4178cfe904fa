"""The heads of YOLOv5, v6, v7 and YOLOX: one row for each anchor, with objectness. Pure."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from forebay_server.service.errors import CorruptResultError
from forebay_server.service.request import OutputArrays
from forebay_server.service.results.arrays import check_finite, frame_row, quiet
from forebay_server.service.results.heads.candidates import (
    NO_CANDIDATES,
    Candidates,
    Floats,
    best_of,
    check_columns,
    corners_of,
)
from forebay_server.service.results.heads.extras import NO_EXTRAS, Extras
from forebay_server.service.results.heads.names import HeadName, Nms


@dataclass(frozen=True, slots=True)
class ObjectnessHead:
    """One output [anchors, 5 + classes + extras]: center x, y, width, height, objectness, class scores, extras.

    A score is objectness times the class's score. Boxes are in pixels of the model's picture.

    Attributes:
        class_count: number of classes.
        output: index of the output.
        extras: mask coefficients after the scores.
        name: of the family; all of them read alike.
    """

    default_nms: ClassVar[Nms] = "class"

    class_count: int
    output: int = 0
    extras: Extras = NO_EXTRAS
    name: HeadName = "yolo_objectness"

    def candidates(self, outputs: OutputArrays, least_score: float) -> Candidates:
        """Return the candidates of one frame. Raises CorruptResultError if outputs do not fit together."""
        anchors = _anchors(outputs, self.output, self.class_count, self.extras)
        chosen, scores, rows = _best_rows(anchors, self.class_count, least_score)
        if not chosen.size:
            return NO_CANDIDATES
        end = 5 + self.class_count
        extras = self.extras.read(rows[:, end:], outputs)
        boxes = corners_of(rows[:, :4])
        return Candidates(scores, rows[:, 5:end].argmax(axis=1), boxes, False, *extras)  # noqa: FBT003 - is_unit


@dataclass(frozen=True, slots=True)
class YoloxHead:
    """As ObjectnessHead, but boxes are relative to their grid cell: (x + column) * stride, exp(width) * stride.

    Attributes:
        class_count: number of classes.
        width: of the model's picture in pixels.
        height: as width.
        output: index of the output.
        strides: pixels of a grid cell, in the order of the anchors.
    """

    name: ClassVar[HeadName] = "yolox"
    default_nms: ClassVar[Nms] = "class"

    class_count: int
    width: int
    height: int
    output: int = 0
    strides: tuple[int, ...] = (8, 16, 32)

    def candidates(self, outputs: OutputArrays, least_score: float) -> Candidates:
        """Return the candidates of one frame. Raises CorruptResultError if outputs do not fit together."""
        anchors = _anchors(outputs, self.output, self.class_count, NO_EXTRAS)
        grid = _grid(self.width, self.height, self.strides)
        if len(anchors) != len(grid):
            raise CorruptResultError(
                f"the model gives {len(anchors)} anchors; a picture of {self.width}x{self.height} has {len(grid)}"
            )
        chosen, scores, rows = _best_rows(anchors, self.class_count, least_score)
        if not chosen.size:
            return NO_CANDIDATES
        return Candidates(scores, rows[:, 5:].argmax(axis=1), corners_of(_placed(rows, grid[chosen])))


def _anchors(outputs: OutputArrays, output: int, class_count: int, extras: Extras) -> NDArray[Any]:
    anchors = frame_row(outputs, output, 2, "the output of boxes")
    check_columns(anchors.shape[1], 5 + class_count + extras.value_count, "the output of boxes")
    return anchors


@quiet
def _best_rows(
    anchors: NDArray[Any], class_count: int, least_score: float
) -> tuple[NDArray[np.intp], Floats, NDArray[Any]]:
    """Return index, score and float32 row of the best anchors.

    The product is at most the objectness, so that only anchors whose objectness passes the threshold are read.
    """
    objectness = anchors[:, 4]
    check_finite(objectness, "scores")
    chosen = np.flatnonzero(objectness >= least_score)
    rows = anchors[chosen].astype(np.float32, copy=False)
    scores = rows[:, 4] * rows[:, 5 : 5 + class_count].max(axis=1)
    best = best_of(scores, least_score)
    return chosen[best], scores[best], rows[best]


@quiet
def _placed(rows: NDArray[Any], cells: Floats) -> Floats:
    """Return center x, center y, width, height in pixels of boxes that are relative to their cells."""
    centered = np.empty((len(rows), 4), np.float32)
    centered[:, :2] = (rows[:, :2] + cells[:, :2]) * cells[:, 2:]
    centered[:, 2:] = np.exp(rows[:, 2:4]) * cells[:, 2:]
    return centered


@lru_cache(maxsize=16)
def _grid(width: int, height: int, strides: tuple[int, ...]) -> Floats:
    """Return column, row and stride of every anchor, [anchors, 3]; read only."""
    levels = []
    for stride in strides:
        columns, rows = width // stride, height // stride
        level = np.empty((rows * columns, 3), np.float32)
        level[:, 0] = np.tile(np.arange(columns), rows)
        level[:, 1] = np.repeat(np.arange(rows), columns)
        level[:, 2] = stride
        levels.append(level)
    grid = np.concatenate(levels)
    grid.flags.writeable = False
    return grid

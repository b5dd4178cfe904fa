"""The heads of models whose first output counts the objects: TensorFlow's detection API and EfficientNMS. Pure."""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from forebay_server.service.errors import CorruptResultError
from forebay_server.service.request import OutputArrays
from forebay_server.service.results.arrays import frame_row
from forebay_server.service.results.heads.candidates import (
    NO_CANDIDATES,
    Candidates,
    best_of,
    check_boxes,
    check_class_ids,
)
from forebay_server.service.results.heads.names import HeadName, Nms


@dataclass(frozen=True, slots=True)
class CountedOutputs:
    """Indices of the four outputs.

    Attributes:
        count: [1], the number of objects; rows behind them are not read.
        boxes: [n, 4].
        scores: [n].
        class_ids: [n].
    """

    count: int = 0
    boxes: int = 1
    scores: int = 2
    class_ids: int = 3


@dataclass(frozen=True, slots=True)
class TfDetectionHead:
    """Outputs of TensorFlow's object detection API and of SSD: boxes are y_min, x_min, y_max, x_max, 0..1.

    Attributes:
        outputs: their indices.
        first_class: number that the model gives the first class: 1, or 0 in models for TensorFlow Lite.
    """

    name: ClassVar[HeadName] = "tf_detection"
    default_nms: ClassVar[Nms] = "none"

    outputs: CountedOutputs = field(default_factory=CountedOutputs)
    first_class: int = 1

    def candidates(self, outputs: OutputArrays, least_score: float) -> Candidates:
        """Return the candidates of one frame. Raises CorruptResultError if outputs do not fit together."""
        found = _counted(outputs, self.outputs, least_score)
        if found is None:
            return NO_CANDIDATES
        scores, boxes, class_ids = found
        # float64, because unsigned numbers of a class below the first one would become large instead of negative
        numbers = np.subtract(class_ids, self.first_class, dtype=np.float64)
        return Candidates(scores, numbers, boxes[:, [1, 0, 3, 2]], is_unit=True)


@dataclass(frozen=True, slots=True)
class EfficientNmsHead:
    """Outputs of TensorRT's EfficientNMS plugin: boxes are x_min, y_min, x_max, y_max.

    Attributes:
        outputs: their indices.
        is_unit: whether boxes are 0..1 of the model's picture; otherwise they are in its pixels.
    """

    name: ClassVar[HeadName] = "efficient_nms"
    default_nms: ClassVar[Nms] = "none"

    outputs: CountedOutputs = field(default_factory=CountedOutputs)
    is_unit: bool = False

    def candidates(self, outputs: OutputArrays, least_score: float) -> Candidates:
        """Return the candidates of one frame. Raises CorruptResultError if outputs do not fit together."""
        found = _counted(outputs, self.outputs, least_score)
        if found is None:
            return NO_CANDIDATES
        scores, boxes, class_ids = found
        return Candidates(scores, class_ids, boxes, is_unit=self.is_unit)


def _counted(
    outputs: OutputArrays, indices: CountedOutputs, least_score: float
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[Any]] | None:
    """Return scores, boxes and classes from `least_score` on; None if there are none."""
    scores = frame_row(outputs, indices.scores, 1, "scores")
    boxes = frame_row(outputs, indices.boxes, 2, "boxes")
    check_boxes(boxes, len(scores))
    class_ids = frame_row(outputs, indices.class_ids, 1, "class ids")
    check_class_ids(class_ids, len(scores))
    chosen = best_of(scores[: _count(outputs, indices.count, len(scores))], least_score)
    if not chosen.size:
        return None
    return (
        scores[chosen].astype(np.float32, copy=False),
        boxes[chosen].astype(np.float32, copy=False),
        class_ids[chosen],
    )


def _count(outputs: OutputArrays, index: int, most: int) -> int:
    if index >= len(outputs) or outputs[index].size != 1:
        raise CorruptResultError("the number of objects should be one number")
    count = float(outputs[index].reshape(())[()])
    if not (math.isfinite(count) and 0 <= count <= most):
        raise CorruptResultError(f"the number of objects is {count:g}: it should be 0 to {most}")
    return int(count)

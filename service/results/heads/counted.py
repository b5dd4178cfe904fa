"""The heads of models whose first output counts the objects: TensorFlow's detection API and EfficientNMS. Pure."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from forebay_server.service.errors import CorruptResultError
from forebay_server.service.request import OutputArrays
from forebay_server.service.results.arrays import frame_row
from forebay_server.service.results.heads.candidates import NO_CANDIDATES, Candidates
from forebay_server.service.results.heads.decided import DecidedOutputs, DecidedRows, best_rows
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
        assert found.class_ids is not None  # noqa: S101 - for mypy: the head has an output of classes
        # float64, because unsigned numbers of a class below the first one would become large instead of negative
        numbers = np.subtract(found.class_ids, self.first_class, dtype=np.float64)
        return Candidates(found.scores, numbers, found.boxes[:, [1, 0, 3, 2]], is_unit=True)


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
        return Candidates(found.scores, found.class_ids, found.boxes, is_unit=self.is_unit)


def _counted(outputs: OutputArrays, indices: CountedOutputs, least_score: float) -> DecidedRows | None:
    """Return the best of the counted rows; None if there are none."""
    most = len(frame_row(outputs, indices.scores, 1, "scores"))
    decided = DecidedOutputs(indices.boxes, indices.scores, indices.class_ids)
    return best_rows(outputs, decided, least_score, _count(outputs, indices.count, most))


def _count(outputs: OutputArrays, index: int, most: int) -> int:
    if index >= len(outputs) or outputs[index].size != 1:
        raise CorruptResultError("the number of objects should be one number")
    count = float(outputs[index].reshape(())[()])
    if not (math.isfinite(count) and 0 <= count <= most):
        raise CorruptResultError(f"the number of objects is {count:g}: it should be 0 to {most}")
    return int(count)

"""The heads of transformers that give a fixed number of queries: DETR, RF-DETR and RT-DETR. Pure."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from forebay_server.service.errors import CorruptResultError
from forebay_server.service.request import OutputArrays
from forebay_server.service.results.arrays import check_finite, frame_row, quiet
from forebay_server.service.results.heads.candidates import (
    NO_CANDIDATES,
    Candidates,
    best_of,
    check_boxes,
    check_columns,
    corners_of,
)
from forebay_server.service.results.heads.decided import DecidedOutputs, best_rows
from forebay_server.service.results.heads.names import HeadName, Nms


@dataclass(frozen=True, slots=True)
class DetrHead:
    """Logits [queries, classes + 1] and boxes [queries, 4]; softmax over the classes, of which the last is no object.

    Boxes are center x, center y, width, height, 0..1 of the model's picture.

    Attributes:
        logits_output: index of the logits.
        boxes_output: index of the boxes.
    """

    name: ClassVar[HeadName] = "detr"
    default_nms: ClassVar[Nms] = "none"

    logits_output: int = 0
    boxes_output: int = 1

    def candidates(self, outputs: OutputArrays, least_score: float) -> Candidates:
        """Return the candidates of one frame. Raises CorruptResultError if outputs do not fit together."""
        logits, boxes = _queries(outputs, self.logits_output, self.boxes_output, least_classes=2)
        scores = _best_share(logits)
        chosen = best_of(scores, least_score)
        if not chosen.size:
            return NO_CANDIDATES
        class_ids = logits[chosen, :-1].argmax(axis=1)
        return Candidates(scores[chosen], class_ids, _unit_boxes(boxes, chosen), is_unit=True)


@dataclass(frozen=True, slots=True)
class RfDetrHead:
    """Logits [queries, classes] and boxes [queries, 4]; a sigmoid for each class, so that a query may have several.

    Boxes are center x, center y, width, height, 0..1 of the model's picture. RT-DETR, Deformable DETR and D-FINE as
    Hugging Face exports them read alike.

    Attributes:
        logits_output: index of the logits.
        boxes_output: index of the boxes.
    """

    name: ClassVar[HeadName] = "rf_detr"
    default_nms: ClassVar[Nms] = "none"

    logits_output: int = 1
    boxes_output: int = 0

    def candidates(self, outputs: OutputArrays, least_score: float) -> Candidates:
        """Return the candidates of one frame. Raises CorruptResultError if outputs do not fit together."""
        logits, boxes = _queries(outputs, self.logits_output, self.boxes_output, least_classes=1)
        # one exponential for each logit that may pass, instead of one for each of 300 x 91
        possible = np.flatnonzero(logits >= _least_logit(least_score))
        scores = _sigmoid(logits.ravel()[possible])
        best = best_of(scores, least_score)
        if not best.size:
            return NO_CANDIDATES
        queries, class_ids = np.divmod(possible[best], logits.shape[1])
        return Candidates(scores[best], class_ids, _unit_boxes(boxes, queries), is_unit=True)


@dataclass(frozen=True, slots=True)
class RtDetrHead:
    """One output of Ultralytics' RT-DETR: [queries, 4 + classes] with scores, or [queries, 6] with score and class.

    Boxes are center x, center y, width, height, 0..1 of the model's picture.

    Attributes:
        class_count: number of classes; None for the form with score and class.
        output: index of the output.
    """

    name: ClassVar[HeadName] = "rt_detr"
    default_nms: ClassVar[Nms] = "none"

    class_count: int | None
    output: int = 0

    def candidates(self, outputs: OutputArrays, least_score: float) -> Candidates:
        """Return the candidates of one frame. Raises CorruptResultError if outputs do not fit together."""
        queries = frame_row(outputs, self.output, 2, "the output of boxes")
        is_decided = self.class_count is None
        check_columns(queries.shape[1], 4 + (self.class_count or 2), "the output of boxes")
        scores = queries[:, 4] if is_decided else queries[:, 4:].max(axis=1)
        chosen = best_of(scores, least_score)
        if not chosen.size:
            return NO_CANDIDATES
        rows = queries[chosen].astype(np.float32, copy=False)
        class_ids = rows[:, 5] if is_decided else rows[:, 4:].argmax(axis=1)
        return Candidates(
            scores[chosen].astype(np.float32, copy=False), class_ids, corners_of(rows[:, :4]), is_unit=True
        )


@dataclass(frozen=True, slots=True)
class OfficialRtDetrHead:
    """Outputs `labels` [n], `boxes` [n, 4] and `scores` [n] of RT-DETR, D-FINE and DEIM by their authors.

    Boxes are x_min, y_min, x_max, y_max in pixels of the size that the input `orig_target_sizes` names, which is the
    model's own.

    Attributes:
        labels_output: index of the classes.
        boxes_output: index of the boxes.
        scores_output: index of the scores.
    """

    name: ClassVar[HeadName] = "rt_detr_official"
    default_nms: ClassVar[Nms] = "none"

    labels_output: int = 0
    boxes_output: int = 1
    scores_output: int = 2

    def candidates(self, outputs: OutputArrays, least_score: float) -> Candidates:
        """Return the candidates of one frame. Raises CorruptResultError if outputs do not fit together."""
        indices = DecidedOutputs(self.boxes_output, self.scores_output, self.labels_output)
        rows = best_rows(outputs, indices, least_score)
        return NO_CANDIDATES if rows is None else Candidates(rows.scores, rows.class_ids, rows.boxes)


def _queries(
    outputs: OutputArrays, logits_output: int, boxes_output: int, *, least_classes: int
) -> tuple[NDArray[np.float32], NDArray[Any]]:
    logits = frame_row(outputs, logits_output, 2, "logits")
    boxes = frame_row(outputs, boxes_output, 2, "boxes")
    check_boxes(boxes, len(logits))
    if logits.shape[1] < least_classes:
        raise CorruptResultError(f"logits have shape {list(logits.shape)}: too few classes")
    check_finite(logits, "logits")
    return logits.astype(np.float32, copy=False), boxes


def _unit_boxes(boxes: NDArray[Any], chosen: NDArray[np.intp]) -> NDArray[np.float32]:
    return corners_of(boxes[chosen].astype(np.float32, copy=False))


def _least_logit(least_score: float) -> float:
    """Return a logit a little below the one of `least_score`; scores decide at the border."""
    if least_score <= 0:
        return -math.inf
    if least_score >= 1:
        return 16.0  # of a float32, 1 / (1 + exp(-17)) is 1
    return math.log(least_score / (1 - least_score)) - 1e-3


@quiet
def _best_share(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the largest of the softmax but for the last class."""
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    best: NDArray[np.float32] = shares[:, :-1].max(axis=1) / shares.sum(axis=1)
    return best


@quiet
def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    shares = np.exp(-logits)
    shares += np.float32(1)
    return np.reciprocal(shares)

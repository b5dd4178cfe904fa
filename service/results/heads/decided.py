"""Outputs of which the model has decided the class: a box, a score and a class for each object. Pure."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from forebay_server.service.request import OutputArrays
from forebay_server.service.results.arrays import frame_row
from forebay_server.service.results.heads.candidates import Floats, best_of, check_boxes, check_class_ids


class DecidedOutputs(NamedTuple):
    """Indices of the outputs.

    Attributes:
        boxes: [n, 4].
        scores: [n].
        class_ids: [n]; None if there is only class 0.
    """

    boxes: int
    scores: int
    class_ids: int | None


class DecidedRows(NamedTuple):
    """The best rows of one frame, by falling score.

    Attributes:
        scores: float32 [n].
        boxes: float32 [n, 4], as the model gives them.
        class_ids: numbers [n], as the model gives them; None if there is only class 0.
    """

    scores: Floats
    boxes: Floats
    class_ids: NDArray[Any] | None


def best_rows(
    outputs: OutputArrays, indices: DecidedOutputs, least_score: float, count: int | None = None
) -> DecidedRows | None:
    """Return the rows from `least_score` on; None if there are none.

    Args:
        outputs: of one frame; borrowed.
        indices: of the outputs to read.
        least_score: 0..1.
        count: rows that hold objects; None: all.

    Raises:
        CorruptResultError: outputs do not fit together, or a score is not finite.
    """
    scores = frame_row(outputs, indices.scores, 1, "scores")
    boxes = frame_row(outputs, indices.boxes, 2, "boxes")
    check_boxes(boxes, len(scores))
    class_ids = None
    if indices.class_ids is not None:
        class_ids = frame_row(outputs, indices.class_ids, 1, "class ids")
        check_class_ids(class_ids, len(scores))
    chosen = best_of(scores[:count], least_score)
    if not chosen.size:
        return None
    return DecidedRows(
        scores[chosen].astype(np.float32, copy=False),
        boxes.take(chosen, axis=0).astype(np.float32, copy=False),
        None if class_ids is None else class_ids[chosen],
    )

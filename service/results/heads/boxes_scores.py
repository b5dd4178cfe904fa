"""The head of the bundled models: boxes, the best class's score and its number are outputs of their own. Pure."""

from dataclasses import dataclass
from typing import ClassVar

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
class BoxesScoresHead:
    """Outputs `boxes`, `scores` and `class_ids`, before non-maximum suppression.

    Attributes:
        boxes_output: index of the output [n, 4] floats: x_min, y_min, x_max, y_max, 0..1 of the picture.
        scores_output: index of the output [n] floats: score of the best class, 0..1.
        class_ids_output: index of the output [n] integers: the best class; None if there is only class 0.
    """

    name: ClassVar[HeadName] = "boxes_scores"
    default_nms: ClassVar[Nms] = "class"

    boxes_output: int = 0
    scores_output: int = 1
    class_ids_output: int | None = 2

    def candidates(self, outputs: OutputArrays, least_score: float) -> Candidates:
        """Return the candidates of one frame. Raises CorruptResultError if outputs do not fit together."""
        scores = frame_row(outputs, self.scores_output, 1, "scores")
        boxes = frame_row(outputs, self.boxes_output, 2, "boxes")
        check_boxes(boxes, len(scores))
        class_ids = None
        if self.class_ids_output is not None:
            class_ids = frame_row(outputs, self.class_ids_output, 1, "class ids")
            check_class_ids(class_ids, len(scores))
        chosen = best_of(scores, least_score)
        if not chosen.size:
            return NO_CANDIDATES
        return Candidates(
            scores[chosen], None if class_ids is None else class_ids[chosen], boxes.take(chosen, axis=0), is_unit=True
        )

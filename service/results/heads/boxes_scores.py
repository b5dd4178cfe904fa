"""The head of the bundled models: boxes, the best class's score and its number are outputs of their own. Pure."""

from dataclasses import dataclass
from typing import ClassVar

from forebay_server.service.request import OutputArrays
from forebay_server.service.results.heads.candidates import NO_CANDIDATES, Candidates
from forebay_server.service.results.heads.decided import DecidedOutputs, best_rows
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
        indices = DecidedOutputs(self.boxes_output, self.scores_output, self.class_ids_output)
        rows = best_rows(outputs, indices, least_score)
        return NO_CANDIDATES if rows is None else Candidates(rows.scores, rows.class_ids, rows.boxes, is_unit=True)

"""The raw head of YOLOv8, v9, 11, 12 and 26: one column for each anchor, without objectness. Pure."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from forebay_server.service.request import OutputArrays
from forebay_server.service.results.arrays import frame_row
from forebay_server.service.results.heads.candidates import (
    NO_CANDIDATES,
    Candidates,
    best_of,
    check_columns,
    corners_of,
    highest_of_rows,
)
from forebay_server.service.results.heads.extras import NO_EXTRAS, Extras
from forebay_server.service.results.heads.names import HeadName, Nms


@dataclass(frozen=True, slots=True)
class YoloHead:
    """One output [4 + classes + extras, anchors]: center x, center y, width, height, scores (sigmoid done), extras.

    Attributes:
        class_count: number of classes.
        output: index of the output.
        extras: keypoints, angle or mask coefficients after the scores.
    """

    name: ClassVar[HeadName] = "yolo"
    default_nms: ClassVar[Nms] = "class"

    class_count: int
    output: int = 0
    extras: Extras = NO_EXTRAS

    def candidates(self, outputs: OutputArrays, least_score: float) -> Candidates:
        """Return the candidates of one frame. Raises CorruptResultError if outputs do not fit together."""
        anchors = frame_row(outputs, self.output, 2, "the output of boxes")
        end = 4 + self.class_count
        check_columns(anchors.shape[0], end + self.extras.value_count, "the output of boxes")
        scores = highest_of_rows(anchors[4:end])
        chosen = best_of(scores, least_score)
        if not chosen.size:
            return NO_CANDIDATES
        rows = anchors.T[chosen].astype(np.float32, copy=False)
        extras = self.extras.read(rows[:, end:], outputs)
        return Candidates(
            scores[chosen].astype(np.float32, copy=False),
            rows[:, 4:end].argmax(axis=1),
            rows[:, :4] if self.extras.has_angle else corners_of(rows[:, :4]),
            False,  # noqa: FBT003 - is_unit; the extras follow by position
            *extras,
        )

"""The head of models that have suppressed duplicates themselves: YOLOv10, YOLO26, any with nms=True. Pure."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from forebay_server.service.request import OutputArrays
from forebay_server.service.results.arrays import frame_row
from forebay_server.service.results.heads.candidates import NO_CANDIDATES, Candidates, best_of, check_columns
from forebay_server.service.results.heads.extras import NO_EXTRAS, Extras
from forebay_server.service.results.heads.names import HeadName, Nms


@dataclass(frozen=True, slots=True)
class EndToEndHead:
    """One output [n, 6 + extras]: x_min, y_min, x_max, y_max, score, class, extras; unused rows are zeros.

    With an angle, a box is center x, center y, width, height. All are in pixels of the model's picture.

    Attributes:
        output: index of the output.
        extras: keypoints, angle or mask coefficients after the class.
    """

    name: ClassVar[HeadName] = "end_to_end"
    default_nms: ClassVar[Nms] = "none"

    output: int = 0
    extras: Extras = NO_EXTRAS

    def candidates(self, outputs: OutputArrays, least_score: float) -> Candidates:
        """Return the candidates of one frame. Raises CorruptResultError if outputs do not fit together."""
        rows = frame_row(outputs, self.output, 2, "the output of boxes")
        check_columns(rows.shape[1], 6 + self.extras.value_count, "the output of boxes")
        chosen = best_of(rows[:, 4], least_score)
        if not chosen.size:
            return NO_CANDIDATES
        best = rows[chosen].astype(np.float32, copy=False)
        extras = self.extras.read(best[:, 6:], outputs)
        return Candidates(best[:, 4], best[:, 5], best[:, :4], False, *extras)  # noqa: FBT003 - is_unit

"""A stream's options for results; unset values fall back to the model's own. Immutable."""

from dataclasses import dataclass
from typing import Literal

from forebay_server.service.results.task import ClassificationTask, DetectionTask

MaskFormat = Literal["none", "polygons", "run_lengths"]


@dataclass(frozen=True, slots=True)
class ResultOptions:
    """Thresholds of one stream. The front end checks their ranges when the stream opens.

    Attributes:
        score_threshold: 0..1; None takes the model's.
        iou_threshold: 0..1; None takes the model's; classes ignore it.
        max_results: at least 1; 0 takes the model's.
        masks: form in which a segmentation model's masks are sent; making them costs time, so that none are by default.
    """

    score_threshold: float | None = None
    iou_threshold: float | None = None
    max_results: int = 0
    masks: MaskFormat = "none"

    def for_detections(self, task: DetectionTask) -> tuple[float, float, int]:
        """Return score threshold, IoU threshold and most results, with the model's values filled in."""
        return (
            task.score_threshold if self.score_threshold is None else self.score_threshold,
            task.iou_threshold if self.iou_threshold is None else self.iou_threshold,
            self.max_results or task.max_results,
        )

    def for_classes(self, task: ClassificationTask) -> tuple[float | None, int]:
        """Return score threshold (None for all) and most results, with the model's values filled in."""
        threshold = task.score_threshold if self.score_threshold is None else self.score_threshold
        return threshold, self.max_results or task.max_results

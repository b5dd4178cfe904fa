"""The meaning of a model's outputs: the tasks whose results have types. Values only. Thread: any (immutable)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DetectionTask:
    """Outputs are candidate boxes, before non-maximum suppression.

    Attributes:
        labels: name of each class; a class without a name is called by its number.
        score_threshold: default, 0..1.
        iou_threshold: default for the suppression within a class, 0..1.
        max_results: default, at least 1.
        boxes_output: index of the output [boxes, 4] float32: x_min, y_min, x_max, y_max, 0..1 of the picture.
        scores_output: index of the output [boxes] float32: score of the best class, 0..1.
        class_ids_output: index of the output [boxes], integers: the best class; None if there is only class 0.
    """

    labels: tuple[str, ...]
    score_threshold: float = 0.4
    iou_threshold: float = 0.5
    max_results: int = 100
    boxes_output: int = 0
    scores_output: int = 1
    class_ids_output: int | None = 2


@dataclass(frozen=True, slots=True)
class ClassificationTask:
    """One output is a score for each class.

    Attributes:
        labels: name of each class; a class without a name is called by its number.
        score_threshold: default; classes below are left out; None keeps all.
        max_results: default number of classes in a result, at least 1.
        scores_output: index of the output [classes], floats.
    """

    labels: tuple[str, ...]
    score_threshold: float | None = None
    max_results: int = 5
    scores_output: int = 0


Task = DetectionTask | ClassificationTask

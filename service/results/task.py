"""The meaning of a model's outputs: the tasks whose results have types. Values only. Thread: any (immutable)."""

from dataclasses import dataclass, field
from typing import Literal

from forebay_server.service.results.heads.boxes_scores import BoxesScoresHead
from forebay_server.service.results.heads.head import Head
from forebay_server.service.results.heads.names import Nms

Activation = Literal["none", "softmax", "sigmoid"]


@dataclass(frozen=True, slots=True)
class DetectionTask:
    """Outputs are objects with boxes: upright or rotated, with or without keypoints and masks, as the head says.

    Attributes:
        labels: name of each class; a class without a name is called by its number.
        score_threshold: default, 0..1.
        iou_threshold: default for non-maximum suppression, 0..1.
        max_results: default, at least 1.
        head: how candidates are read from the outputs.
        nms: non-maximum suppression; None takes the head's default, which is none for heads without duplicates.
        keypoint_names: of a pose model, in the model's order; may be empty.
    """

    labels: tuple[str, ...]
    score_threshold: float = 0.4
    iou_threshold: float = 0.5
    max_results: int = 100
    head: Head = field(default_factory=BoxesScoresHead)
    nms: Nms | None = None
    keypoint_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ClassificationTask:
    """One output is a score for each class.

    Attributes:
        labels: name of each class; a class without a name is called by its number.
        score_threshold: default; classes below are left out; None keeps all.
        max_results: default number of classes in a result, at least 1.
        scores_output: index of the output [classes], floats.
        activation: turns the outputs into scores; none if the model has done so.
    """

    labels: tuple[str, ...]
    score_threshold: float | None = None
    max_results: int = 5
    scores_output: int = 0
    activation: Activation = "none"


Task = DetectionTask | ClassificationTask

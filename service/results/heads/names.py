"""The values of the parameters `head` and `nms` of a model's configuration."""

from typing import Literal

HeadName = Literal[
    "yolo",
    "yolo_objectness",
    "yolox",
    "yolox_decoded",
    "end_to_end",
    "detr",
    "rt_detr",
    "rt_detr_official",
    "rf_detr",
    "tf_detection",
    "efficient_nms",
    "boxes_scores",
]

Nms = Literal["class", "agnostic", "none"]
"""Non-maximum suppression: within each class, over all classes together, or not at all."""

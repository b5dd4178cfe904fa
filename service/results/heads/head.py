"""The union of all heads: each has `name`, `default_nms` and `candidates(outputs, least_score)`."""

from forebay_server.service.results.heads.boxes_scores import BoxesScoresHead
from forebay_server.service.results.heads.counted import EfficientNmsHead, TfDetectionHead
from forebay_server.service.results.heads.detr import DetrHead, OfficialRtDetrHead, RfDetrHead, RtDetrHead
from forebay_server.service.results.heads.end_to_end import EndToEndHead
from forebay_server.service.results.heads.yolo import YoloHead
from forebay_server.service.results.heads.yolo_objectness import ObjectnessHead, YoloxHead

Head = (
    YoloHead
    | ObjectnessHead
    | YoloxHead
    | EndToEndHead
    | DetrHead
    | RtDetrHead
    | OfficialRtDetrHead
    | RfDetrHead
    | TfDetectionHead
    | EfficientNmsHead
    | BoxesScoresHead
)

"""Finds the head of a model from its outputs' names and shapes and from hints. Pure.

Each rule looks for one family and returns the heads of it that fit. One head in all is the answer; several are
ambiguous, and the answer then holds the parameters that choose between them. A guess would be worse: boxes that are
read by the wrong head look like those of a bad model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from forebay_server.engines.engine import TensorSpec
from forebay_server.service.results.heads.boxes_scores import BoxesScoresHead
from forebay_server.service.results.heads.columns import IMPOSSIBLE, UNKNOWN, Hints, Prototypes, meanings_of
from forebay_server.service.results.heads.counted import CountedOutputs, EfficientNmsHead, TfDetectionHead
from forebay_server.service.results.heads.detr import DetrHead, OfficialRtDetrHead, RfDetrHead, RtDetrHead
from forebay_server.service.results.heads.end_to_end import EndToEndHead
from forebay_server.service.results.heads.head import Head
from forebay_server.service.results.heads.names import HeadName
from forebay_server.service.results.heads.yolo import YoloHead
from forebay_server.service.results.heads.yolo_objectness import ObjectnessHead, YoloxHead

FORMS: dict[HeadName, str] = {
    "yolo": "one output [4 + classes + extras, anchors] (YOLOv8, v9, 11, 12, 26)",
    "yolo_objectness": "one output [anchors, 5 + classes] with three anchors a cell (YOLOv5, v7)",
    "yolox": "one output [anchors, 5 + classes], boxes relative to their grid cell (YOLOX)",
    "yolox_decoded": "one output [anchors, 5 + classes], boxes in pixels (YOLOX with decoding, YOLOv6)",
    "end_to_end": "one output [n, 6 + extras] (YOLOv10, YOLO26, any with nms=True)",
    "detr": "logits [queries, classes + 1] and boxes [queries, 4] (DETR)",
    "rt_detr": "one output [queries, 4 + classes] or [queries, 6] (RT-DETR by Ultralytics)",
    "rt_detr_official": "labels [n], boxes [n, 4] and scores [n] (RT-DETR, D-FINE, DEIM)",
    "rf_detr": "boxes [queries, 4] and logits [queries, classes] (RF-DETR; RT-DETR by Hugging Face)",
    "tf_detection": "num_detections, detection_boxes, detection_scores and detection_classes (TensorFlow)",
    "efficient_nms": "num_dets, det_boxes, det_scores and det_classes (TensorRT's EfficientNMS)",
    "boxes_scores": "boxes [n, 4], scores [n] and, unless there is one class, class_ids [n]",
}
"""Each head's outputs in one line, without the batch dimension: for messages and pages."""

STRIDES = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32), (16, 32))
"""Sides of grid cells in pixels: of nearly all YOLO models, of those with a level more, and of YOLOv3-tiny."""
YOLOX_STRIDES = STRIDES[:3]
"""YOLOX has no tiny model of two levels, whose few anchors could be a model's own rows: 300 at 320x192."""
MAX_ROWS = 1000
"""Rows of an output that a model has chosen itself, mostly 300; anchors of all but the smallest pictures are more."""


OBJECTNESS: frozenset[HeadName | None] = frozenset(("yolo_objectness", "yolox", "yolox_decoded"))
ROWS: frozenset[HeadName | None] = frozenset(("end_to_end", "rt_detr"))


@dataclass(frozen=True, slots=True)
class Option:
    """One head that fits.

    Attributes:
        head: as it would read the outputs.
        parameters: keys and values of the configuration that choose it.
    """

    head: Head
    parameters: Mapping[str, str] = field(default_factory=dict)


class Ambiguous(NamedTuple):
    """Several heads fit.

    Attributes:
        options: at least two, each with the parameters to write.
    """

    options: tuple[Option, ...]


class _Model(NamedTuple):
    outputs: Sequence[TensorSpec]
    size: tuple[int, int] | None
    hints: Hints

    def find(self, *names: str) -> int | None:
        """Return the index of the first output with one of the names; a suffix such as `:0` does not count."""
        for index, spec in enumerate(self.outputs):
            if spec.name.split(":")[0] in names:
                return index
        return None

    def shape(self, index: int | None) -> tuple[int, ...]:
        return () if index is None else self.outputs[index].shape

    def is_wanted(self, name: HeadName) -> bool:
        return self.hints.head in {None, name}


def match(outputs: Sequence[TensorSpec], size: tuple[int, int] | None, hints: Hints) -> Head | Ambiguous | None:
    """Return the head that reads these outputs, several that might, or None if no head fits.

    Args:
        outputs: of the model, without the batch dimension; -1 for dimensions that are not known.
        size: width and height of the model's picture in pixels; None if unknown.
        hints: other facts about the model; its `head` leaves that family alone.
    """
    model = _Model(outputs, size, hints)
    found = _single(model) + (_named(model) if hints.task in {None, "detection"} else [])
    options = [option for option in found if model.is_wanted(option.head.name)]
    if not options:
        return None
    return options[0].head if len(options) == 1 else Ambiguous(tuple(options))


def _named(model: _Model) -> list[Option]:
    """Return the heads whose outputs have names of their own."""
    boxes, scores = model.find("boxes"), model.find("scores")
    if boxes is not None and scores is not None:
        labels = model.find("labels")
        if not (_is_of(model.shape(boxes), -1, 4) and len(model.shape(scores)) == 1):
            return []
        if labels is not None:
            return [Option(OfficialRtDetrHead(labels, boxes, scores), {"head": "rt_detr_official"})]
        return [Option(BoxesScoresHead(boxes, scores, model.find("class_ids")), {"head": "boxes_scores"})]
    return _counted(model) or _transformers(model)


def _counted(model: _Model) -> list[Option]:
    count = model.find("num_dets", "num_detections")
    boxes = model.find("det_boxes", "detection_boxes")
    scores = model.find("det_scores", "detection_scores")
    classes = model.find("det_classes", "detection_classes")
    if count is None or boxes is None or scores is None or classes is None:
        return []
    indices = CountedOutputs(count, boxes, scores, classes)
    # TensorFlow counts in floats, the plugin in integers, also where its outputs have TensorFlow's names
    is_plugin = model.outputs[count].dtype.kind in "iu"
    if model.hints.head == "efficient_nms" or (is_plugin and model.hints.head is None):
        return [Option(EfficientNmsHead(indices), {"head": "efficient_nms"})]
    return [Option(TfDetectionHead(indices), {"head": "tf_detection"})]


def _transformers(model: _Model) -> list[Option]:
    logits, boxes = model.find("logits", "labels"), model.find("pred_boxes", "dets")
    if (logits is None or boxes is None) and model.hints.head in {"detr", "rf_detr"}:
        logits, boxes = _logits_and_boxes(model)
    if logits is None or boxes is None or not _is_of(model.shape(boxes), -1, 4) or len(model.shape(logits)) != 2:
        return []
    values, names = model.shape(logits)[1], model.hints.class_count
    sigmoid = Option(RfDetrHead(logits, boxes), {"head": "rf_detr"})
    softmax = Option(DetrHead(logits, boxes), {"head": "detr"})
    if model.outputs[boxes].name == "dets" or names == values:
        return [sigmoid] if model.hints.head is None else [sigmoid, softmax]
    if names is not None and names + 1 == values and model.hints.head is None:
        return [softmax]
    return [sigmoid, softmax]


def _logits_and_boxes(model: _Model) -> tuple[int | None, int | None]:
    """Return the outputs that can be logits and boxes, under any names."""
    pairs = [index for index, spec in enumerate(model.outputs) if len(spec.shape) == 2]
    boxes = [index for index in pairs if model.shape(index)[1] == 4]
    others = [index for index in pairs if index not in boxes]
    return (others[0], boxes[0]) if len(boxes) == len(others) == 1 else (None, None)


def _single(model: _Model) -> list[Option]:
    """Return the heads that read one output [.., ..], and perhaps prototypes of masks."""
    tables = [index for index, spec in enumerate(model.outputs) if len(spec.shape) == 2 and spec.dtype.kind == "f"]
    if len(tables) != 1:
        return []
    prototypes = next(
        (Prototypes(index, spec.shape[0]) for index, spec in enumerate(model.outputs) if len(spec.shape) == 3), None
    )
    table, shape = tables[0], model.shape(tables[0])
    head, options = model.hints.head, list[Option]()
    if head == "yolo" or (_is_open(model) and _are_anchors(shape[1], model.size)):
        options = _yolo(model, table, shape[0], prototypes)
    if head in OBJECTNESS or (_is_open(model) and not options and _are_anchors(shape[0], model.size, YOLOX_STRIDES)):
        options = _objectness(model, table, shape, prototypes)
    is_table = shape[0] <= MAX_ROWS and (shape[1] >= 0 or model.hints.is_end_to_end)
    if head in ROWS or (head is None and is_table and (shape[0] < 0 or not options)):
        options += _rows(model, table, shape[1], prototypes)
    return options


def _is_open(model: _Model) -> bool:
    """Return whether the head may be one with anchors."""
    return model.hints.head is None and not model.hints.is_end_to_end


def _yolo(model: _Model, table: int, channels: int, prototypes: Prototypes | None) -> list[Option]:
    meanings = meanings_of(_less(channels, 4), model.hints, prototypes, has_scores=True)
    return [
        Option(YoloHead(each.class_count, table, each.extras), {"head": "yolo", **each.parameters}) for each in meanings
    ]


def _objectness(model: _Model, table: int, shape: tuple[int, ...], prototypes: Prototypes | None) -> list[Option]:
    meanings = meanings_of(_less(shape[1], 5), model.hints, prototypes, has_scores=True)
    found: list[Option] = []
    for each in meanings:
        if each.extras.keypoint_count or each.extras.has_angle:
            continue
        if shape[0] in _anchor_counts(model.size, per_cell=3) or model.hints.head == "yolo_objectness":
            head = ObjectnessHead(each.class_count, table, each.extras)
            found.append(Option(head, {"head": "yolo_objectness"}))
            continue
        decoded = ObjectnessHead(each.class_count, table, each.extras, name="yolox_decoded")
        found.append(Option(decoded, {"head": "yolox_decoded"}))
        if model.size is not None:
            strides = _strides_of(shape[0], model.size)
            relative = YoloxHead(each.class_count, *model.size, table, strides)
            found.append(Option(relative, {"head": "yolox"}))
    return found


def _rows(model: _Model, table: int, values: int, prototypes: Prototypes | None) -> list[Option]:
    hints, classes = model.hints, model.hints.class_count
    is_decoder = hints.exporter_head == "RTDETRDecoder"
    found: list[Option] = []
    if values == 6 and (is_decoder or (hints.head == "rt_detr" and classes != 2)):
        return [Option(RtDetrHead(None, table), {"head": "rt_detr"})]
    is_transformer = values - 4 == classes or (classes is None and 6 < values <= MAX_ROWS)
    if not is_decoder:
        meanings = meanings_of(_less(values, 6), hints, prototypes, has_scores=False)
        found = [
            Option(EndToEndHead(table, each.extras), {"head": "end_to_end", **each.parameters}) for each in meanings
        ]
    if is_transformer and not hints.is_end_to_end and hints.task in {None, "detection"} and (classes or not found):
        found.append(Option(RtDetrHead(values - 4, table), {"head": "rt_detr"}))
    return found


def _are_anchors(count: int, size: tuple[int, int] | None, of_one: tuple[tuple[int, ...], ...] = STRIDES) -> bool:
    """Return whether a dimension may be the number of anchors; `of_one`: strides of heads with one in a cell."""
    if count < 0:
        return True
    if size is None:
        return count > MAX_ROWS
    return count in _anchor_counts(size, 1, of_one) | _anchor_counts(size, per_cell=3)


def _anchor_counts(size: tuple[int, int] | None, per_cell: int, of: tuple[tuple[int, ...], ...] = STRIDES) -> set[int]:
    return set() if size is None else {per_cell * _cells(size, strides) for strides in of}


def _strides_of(anchors: int, size: tuple[int, int]) -> tuple[int, ...]:
    return next((strides for strides in STRIDES if _cells(size, strides) == anchors), STRIDES[0])


def _cells(size: tuple[int, int], strides: tuple[int, ...]) -> int:
    return sum((size[0] // stride) * (size[1] // stride) for stride in strides)


def _less(count: int, fixed: int) -> int:
    """Return a count without its fixed part; UNKNOWN if it is not known, IMPOSSIBLE if it is less."""
    if count < 0:
        return UNKNOWN
    return count - fixed if count >= fixed else IMPOSSIBLE


def _is_of(shape: tuple[int, ...], *dims: int) -> bool:
    return len(shape) == len(dims) and all(-1 in pair or pair[0] == pair[1] for pair in zip(shape, dims, strict=True))

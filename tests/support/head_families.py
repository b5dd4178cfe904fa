"""Every family of heads: random outputs of a small model, and its objects read from them one number at a time.

The readings are written from the exporters' documentation with plain loops, apart from the vectorised heads.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from forebay_server.service.results.heads.boxes_scores import BoxesScoresHead
from forebay_server.service.results.heads.counted import EfficientNmsHead, TfDetectionHead
from forebay_server.service.results.heads.detr import DetrHead, OfficialRtDetrHead, RfDetrHead, RtDetrHead
from forebay_server.service.results.heads.end_to_end import EndToEndHead
from forebay_server.service.results.heads.extras import Extras
from forebay_server.service.results.heads.yolo import YoloHead
from forebay_server.service.results.heads.yolo_objectness import ObjectnessHead, YoloxHead

WIDTH, HEIGHT = 96, 64
"""Of the model's picture: the sides differ, so that a test notices where they are mixed up."""
CLASSES = 5
STRIDES = (8, 16, 32)
ANCHORS = sum((WIDTH // stride) * (HEIGHT // stride) for stride in STRIDES)
QUERIES = 40
KEYPOINTS = 4
COEFFICIENTS = 6


@dataclass(frozen=True)
class Item:
    """One object in the model's picture; corners in its pixels, or (cx, cy, w, h) with an angle."""

    score: float
    class_id: int
    box: tuple[float, ...]
    keypoints: tuple[tuple[float, ...], ...] = ()
    angle: float | None = None
    coefficients: tuple[float, ...] = ()


@dataclass(frozen=True)
class Family:
    """One family.

    Attributes:
        head: under test.
        outputs: makes random outputs of one frame.
        read: the oracle, outputs to objects.
        anchor_axis: of each output, along which candidates lie; None where an output has none.
        is_ordered: whether a candidate's meaning depends on its place.
    """

    head: Any
    outputs: Callable[[np.random.Generator], tuple[np.ndarray, ...]]
    read: Callable[[tuple[np.ndarray, ...]], list[Item]]
    anchor_axis: tuple[int | None, ...]
    is_ordered: bool = False
    nms: str = "class"


def corners(cx, cy, w, h):
    return (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2)


def random_scores(rng, *shape):
    return rng.random(shape) ** 3


def random_centered(rng, count):
    """cx, cy, w, h in pixels, some of them partly or wholly outside of the picture."""
    cx, cy = rng.uniform(-10, WIDTH + 10, count), rng.uniform(-10, HEIGHT + 10, count)
    return np.stack([cx, cy, rng.uniform(2, 50, count), rng.uniform(2, 50, count)], axis=1)


def random_corners(rng, count):
    c = random_centered(rng, count)
    return np.concatenate([c[:, :2] - c[:, 2:] / 2, c[:, :2] + c[:, 2:] / 2], axis=1)


def unit(values):
    return values / np.array([WIDTH, HEIGHT, WIDTH, HEIGHT])


def f32(*arrays):
    return tuple(np.ascontiguousarray(array, dtype=np.float32) for array in arrays)


def random_extras(rng, count, extras):
    if extras.keypoint_count:
        parts = [rng.uniform(-20, 120, (count, extras.keypoint_count, 2))]
        if extras.keypoint_values == 3:
            parts.append(rng.random((count, extras.keypoint_count, 1)))
        return np.concatenate(parts, axis=2).reshape(count, -1)
    if extras.has_angle:
        return rng.uniform(-math.pi / 4, 3 * math.pi / 4, (count, 1))
    return rng.normal(size=(count, extras.coefficient_count))


def prototypes(rng, extras):
    if extras.prototypes_output is None:
        return ()
    return f32(rng.normal(size=(COEFFICIENTS, HEIGHT // 4, WIDTH // 4)))


def read_extras(values, extras):
    """Fields of Item."""
    if extras.keypoint_count:
        points = []
        for index in range(extras.keypoint_count):
            start = index * extras.keypoint_values
            point = [float(value) for value in values[start : start + extras.keypoint_values]]
            points.append(tuple(point) if extras.keypoint_values == 3 else (*point, 1.0))
        return {"keypoints": tuple(points)}
    if extras.has_angle:
        return {"angle": float(values[0])}
    if extras.coefficient_count:
        return {"coefficients": tuple(float(value) for value in values)}
    return {}


def best_class(scores):
    best = 0
    for index, score in enumerate(scores):
        if score > scores[best]:
            best = index
    return best, float(scores[best])


def yolo(extras):
    def outputs(rng):
        rows = np.concatenate(
            [random_centered(rng, ANCHORS), random_scores(rng, ANCHORS, CLASSES), random_extras(rng, ANCHORS, extras)],
            axis=1,
        )
        return f32(rows.T) + prototypes(rng, extras)

    def read(arrays):
        items = []
        for anchor in range(arrays[0].shape[1]):
            column = arrays[0][:, anchor]
            class_id, score = best_class(column[4 : 4 + CLASSES])
            box = tuple(map(float, column[:4])) if extras.has_angle else corners(*map(float, column[:4]))
            items.append(Item(score, class_id, box, **read_extras(column[4 + CLASSES :], extras)))
        return items

    return Family(YoloHead(CLASSES, extras=extras), outputs, read, (1, None))


def objectness(extras):
    def outputs(rng):
        rows = np.concatenate(
            [
                random_centered(rng, ANCHORS),
                random_scores(rng, ANCHORS, 1) ** 0.5,
                rng.random((ANCHORS, CLASSES)),
                random_extras(rng, ANCHORS, extras),
            ],
            axis=1,
        )
        return f32(rows) + prototypes(rng, extras)

    def read(arrays):
        items = []
        for row in arrays[0]:
            class_id, score = best_class(row[5 : 5 + CLASSES])
            extra = read_extras(row[5 + CLASSES :], extras)
            items.append(Item(float(row[4]) * score, class_id, corners(*map(float, row[:4])), **extra))
        return items

    return Family(ObjectnessHead(CLASSES, extras=extras), outputs, read, (0, None))


def yolox():
    def outputs(rng):
        rows = np.concatenate(
            [rng.uniform(-1, 2, (ANCHORS, 2)), rng.uniform(-1, 1, (ANCHORS, 2)), rng.random((ANCHORS, 1 + CLASSES))], 1
        )
        return f32(rows)

    def read(arrays):
        items, anchor = [], 0
        for stride in STRIDES:
            for row in range(HEIGHT // stride):
                for column in range(WIDTH // stride):
                    x, y, w, h, is_object, *scores = map(float, arrays[0][anchor])
                    class_id, score = best_class(scores)
                    box = corners((x + column) * stride, (y + row) * stride, math.exp(w) * stride, math.exp(h) * stride)
                    items.append(Item(is_object * score, class_id, box))
                    anchor += 1
        return items

    return Family(YoloxHead(CLASSES, WIDTH, HEIGHT), outputs, read, (0,), is_ordered=True)


def end_to_end(extras):
    def outputs(rng):
        boxes = random_centered(rng, QUERIES) if extras.has_angle else random_corners(rng, QUERIES)
        rows = np.concatenate(
            [
                boxes,
                random_scores(rng, QUERIES, 1),
                rng.integers(0, CLASSES, (QUERIES, 1)),
                random_extras(rng, QUERIES, extras),
            ],
            axis=1,
        )
        rows[QUERIES // 2 :] = 0  # padding
        return f32(rows) + prototypes(rng, extras)

    def read(arrays):
        return [
            Item(float(row[4]), int(row[5]), tuple(map(float, row[:4])), **read_extras(row[6:], extras))
            for row in arrays[0]
        ]

    return Family(EndToEndHead(extras=extras), outputs, read, (0, None), nms="none")


def in_pixels(cx, cy, w, h):
    return corners(cx * WIDTH, cy * HEIGHT, w * WIDTH, h * HEIGHT)


def detr():
    def outputs(rng):
        return f32(rng.normal(0, 2, (QUERIES, CLASSES + 1)), unit(random_centered(rng, QUERIES)))

    def read(arrays):
        items = []
        for logits, box in zip(*arrays, strict=True):
            exponentials = [math.exp(logit) for logit in logits]
            class_id, share = best_class(exponentials[:-1])
            items.append(Item(share / sum(exponentials), class_id, in_pixels(*map(float, box))))
        return items

    return Family(DetrHead(), outputs, read, (0, 0), nms="none")


def rf_detr():
    def outputs(rng):
        return f32(unit(random_centered(rng, QUERIES)), rng.normal(-2, 2, (QUERIES, CLASSES)))

    def read(arrays):
        return [
            Item(1 / (1 + math.exp(-logit)), class_id, in_pixels(*map(float, box)))
            for box, logits in zip(*arrays, strict=True)
            for class_id, logit in enumerate(logits)
        ]

    return Family(RfDetrHead(), outputs, read, (0, 0), nms="none")


def rt_detr(is_decided):
    def outputs(rng):
        scores = random_scores(rng, QUERIES, 1 if is_decided else CLASSES)
        classes = [rng.integers(0, CLASSES, (QUERIES, 1))] if is_decided else []
        return f32(np.concatenate([unit(random_centered(rng, QUERIES)), scores, *classes], axis=1))

    def read(arrays):
        items = []
        for row in arrays[0]:
            class_id, score = (int(row[5]), float(row[4])) if is_decided else best_class(row[4:])
            items.append(Item(score, class_id, in_pixels(*map(float, row[:4]))))
        return items

    return Family(RtDetrHead(None if is_decided else CLASSES), outputs, read, (0,), nms="none")


def rt_detr_official():
    def outputs(rng):
        labels = rng.integers(0, CLASSES, QUERIES)
        return (labels, *f32(random_corners(rng, QUERIES), random_scores(rng, QUERIES)))

    def read(arrays):
        return [
            Item(float(score), int(label), tuple(map(float, box))) for label, box, score in zip(*arrays, strict=True)
        ]

    return Family(OfficialRtDetrHead(), outputs, read, (0, 0, 0), nms="none")


def counted(head, is_tf):
    def outputs(rng):
        boxes = random_corners(rng, QUERIES)
        if is_tf:
            boxes = unit(boxes)[:, [1, 0, 3, 2]]
            classes = rng.integers(1, CLASSES + 1, QUERIES).astype(np.float32)
        else:
            classes = rng.integers(0, CLASSES, QUERIES).astype(np.int32)
        count = np.array([QUERIES // 2], np.float32 if is_tf else np.int32)
        return (count, *f32(boxes, np.sort(random_scores(rng, QUERIES))[::-1]), classes)

    def read(arrays):
        items = []
        for index in range(int(arrays[0][0])):
            first, second, third, fourth = map(float, arrays[1][index])
            if is_tf:
                box = (second * WIDTH, first * HEIGHT, fourth * WIDTH, third * HEIGHT)
            else:
                box = (first, second, third, fourth)
            items.append(Item(float(arrays[2][index]), int(arrays[3][index]) - is_tf, box))
        return items

    return Family(head, outputs, read, (None, 0, 0, 0), is_ordered=True, nms="none")


def boxes_scores():
    def outputs(rng):
        classes = rng.integers(0, CLASSES, ANCHORS).astype(np.int32)
        return (*f32(unit(random_corners(rng, ANCHORS)), random_scores(rng, ANCHORS)), classes)

    def read(arrays):
        return [
            Item(float(score), int(class_id), tuple((box * [WIDTH, HEIGHT, WIDTH, HEIGHT]).tolist()))
            for box, score, class_id in zip(*arrays, strict=True)
        ]

    return Family(BoxesScoresHead(), outputs, read, (0, 0, 0))


PLAIN = Extras()
POSE = Extras(keypoint_count=KEYPOINTS)
POSE_2D = Extras(keypoint_count=KEYPOINTS, keypoint_values=2)
ORIENTED = Extras(has_angle=True)
MASKS = Extras(coefficient_count=COEFFICIENTS, prototypes_output=1)

FAMILIES = {
    "yolo": yolo(PLAIN),
    "yolo pose": yolo(POSE),
    "yolo pose without scores": yolo(POSE_2D),
    "yolo oriented": yolo(ORIENTED),
    "yolo masks": yolo(MASKS),
    "objectness": objectness(PLAIN),
    "objectness masks": objectness(MASKS),
    "yolox": yolox(),
    "end to end": end_to_end(PLAIN),
    "end to end pose": end_to_end(POSE),
    "end to end oriented": end_to_end(ORIENTED),
    "end to end masks": end_to_end(MASKS),
    "detr": detr(),
    "rf-detr": rf_detr(),
    "rt-detr with scores": rt_detr(is_decided=False),
    "rt-detr with classes": rt_detr(is_decided=True),
    "rt-detr official": rt_detr_official(),
    "tf detection": counted(TfDetectionHead(), is_tf=True),
    "efficient nms": counted(EfficientNmsHead(), is_tf=False),
    "boxes and scores": boxes_scores(),
}


def permuted(family, arrays, order):
    """The same candidates in another order."""
    axes = (*family.anchor_axis, *[None] * len(arrays))
    return tuple(
        array if axis is None else np.ascontiguousarray(np.take(array, order, axis=axis))
        for array, axis in zip(arrays, axes, strict=False)
    )

"""CPU time of typed results: each family of detectors, one frame of 1280x720 letterboxed into 640x640.

A frame has 20 objects above the threshold, of which suppression keeps all, and random candidates below it. The time is
that of one thread for `make_result`, outputs to typed detections; the least of several runs counts beside the median,
since another process only adds to it.

    python -m forebay_server.bench heads
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forebay_server.bench.rows import Row, Spread
from forebay_server.service.pictures.picture_input import PictureInput
from forebay_server.service.request import OutputArrays
from forebay_server.service.results.heads.boxes_scores import BoxesScoresHead
from forebay_server.service.results.heads.counted import EfficientNmsHead, TfDetectionHead
from forebay_server.service.results.heads.detr import DetrHead, OfficialRtDetrHead, RfDetrHead, RtDetrHead
from forebay_server.service.results.heads.end_to_end import EndToEndHead
from forebay_server.service.results.heads.extras import Extras
from forebay_server.service.results.heads.head import Head
from forebay_server.service.results.heads.yolo import YoloHead
from forebay_server.service.results.heads.yolo_objectness import ObjectnessHead, YoloxHead
from forebay_server.service.results.options import ResultOptions
from forebay_server.service.results.result import make_result
from forebay_server.service.results.task import DetectionTask

SIDE, FRAME = 640, (1280, 720)
OBJECTS, CLASSES, ANCHORS, QUERIES = 20, 80, 8400, 300
BUDGET_US = 2000.0  # of the most frequent model, YOLO 640 with 80 classes: well below a frame's decoding
Table = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Case:
    """One head with its outputs."""

    what: str
    head: Head
    outputs: OutputArrays
    options: ResultOptions = ResultOptions()  # noqa: RUF009 - immutable
    budget_us: float | None = None


def rows(*, is_quick: bool) -> Iterator[Row]:
    """Measure every head."""
    picture = PictureInput(SIDE, SIDE, "RGB", resize="letterbox")
    for case in _cases(np.random.default_rng(1)):
        spread = _measure(case, picture, repeats=5 if is_quick else 40)
        yield Row(case.what, spread, "µs", budget=case.budget_us, note=f"least {spread.least:.0f} µs")


def _measure(case: Case, picture: PictureInput, repeats: int) -> Spread:
    task = DetectionTask(tuple(f"class {index}" for index in range(CLASSES)), head=case.head)
    found = make_result(task, case.outputs, case.options, FRAME, picture)
    if len(found) < OBJECTS:
        raise RuntimeError(f"{case.what}: {len(found)} objects: the measurement is void")
    durations_us = []
    for _ in range(repeats):
        started_ns = time.thread_time_ns()
        for _ in range(10):
            make_result(task, case.outputs, case.options, FRAME, picture)
        durations_us.append((time.thread_time_ns() - started_ns) / 1e4)
    return Spread.of(durations_us)


def _boxes(rng: np.random.Generator, count: int) -> Table:
    """Return center x, center y, width, height, those of the objects apart from each other."""
    boxes = rng.uniform((0, 140, 20, 20), (SIDE, 500, 80, 80), (count, 4))
    grid = np.arange(OBJECTS)
    boxes[:OBJECTS, 0], boxes[:OBJECTS, 1] = 60 + grid % 5 * 120, 180 + grid // 5 * 90
    return boxes.astype(np.float32)


def _scores(rng: np.random.Generator, count: int, classes: int) -> Table:
    scores = (rng.random((count, classes)) * 0.3).astype(np.float32)
    scores[np.arange(OBJECTS), rng.integers(0, classes, OBJECTS)] = rng.uniform(0.5, 0.9, OBJECTS)
    return scores


def _shuffled(rng: np.random.Generator, *tables: Table) -> list[Table]:
    order = rng.permutation(len(tables[0]))
    return [table[order] for table in tables]


def _corners(boxes: Table) -> Table:
    return np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)


def _cases(rng: np.random.Generator) -> Iterator[Case]:
    yield from _yolo_cases(rng)
    yield from _anchor_cases(rng)
    yield from _row_cases(rng)


def _yolo_cases(rng: np.random.Generator) -> Iterator[Case]:
    boxes, scores = _shuffled(rng, _boxes(rng, ANCHORS), _scores(rng, ANCHORS, CLASSES))
    detect = np.ascontiguousarray(np.hstack([boxes, scores]).T)
    yield Case("YOLO, 80 classes", YoloHead(CLASSES), (detect,), budget_us=BUDGET_US)
    yield Case("YOLO, 80 classes, halves", YoloHead(CLASSES), (detect.astype(np.float16),))
    least = ResultOptions(0.0, max_results=10_000)
    yield Case("YOLO, 80 classes, threshold 0, up to 1000 results", YoloHead(CLASSES), (detect,), least)
    points = rng.uniform(0, SIDE, (ANCHORS, 51)).astype(np.float32)
    pose = np.ascontiguousarray(np.hstack([boxes, scores.max(axis=1, keepdims=True), points]).T)
    yield Case("YOLO pose, 17 keypoints", YoloHead(1, extras=Extras(keypoint_count=17)), (pose,))
    angles = rng.uniform(-0.7, 2.3, (ANCHORS, 1)).astype(np.float32)
    oriented = np.ascontiguousarray(np.hstack([boxes, scores, angles]).T)
    yield Case("YOLO oriented, 80 classes", YoloHead(CLASSES, extras=Extras(has_angle=True)), (oriented,))
    head = YoloHead(CLASSES, extras=Extras(coefficient_count=32, prototypes_output=1))
    weights = rng.normal(size=(ANCHORS, 32)).astype(np.float32)
    masks = np.ascontiguousarray(np.hstack([boxes, scores, weights]).T)
    prototypes = np.repeat(np.repeat(rng.normal(size=(32, 20, 20)), 8, axis=1), 8, axis=2).astype(np.float32)
    yield Case("YOLO segmentation, no masks wanted", head, (masks, prototypes))
    yield Case("YOLO segmentation, polygons", head, (masks, prototypes), ResultOptions(masks="polygons"))
    yield Case("YOLO segmentation, run lengths", head, (masks, prototypes), ResultOptions(masks="run_lengths"))


def _anchor_cases(rng: np.random.Generator) -> Iterator[Case]:
    for what, count, head in (
        ("YOLOv5, 25200 anchors", 3 * ANCHORS, ObjectnessHead(CLASSES)),
        ("YOLOX decoded", ANCHORS, ObjectnessHead(CLASSES, name="yolox_decoded")),
    ):
        objectness = (rng.random((count, 1)) * 0.3).astype(np.float32)
        objectness[:OBJECTS] = 0.9
        scores = _scores(rng, count, CLASSES)
        (anchors,) = _shuffled(rng, np.hstack([_boxes(rng, count), objectness, scores]))
        yield Case(what, head, (anchors,))
    relative = np.hstack([np.zeros((ANCHORS, 4), np.float32), np.ones((ANCHORS, 1), np.float32)])
    table = np.roll(np.hstack([relative, _scores(rng, ANCHORS, CLASSES)]), 2400, axis=0)  # objects in row 30 of 80
    yield Case("YOLOX, grid not decoded", YoloxHead(CLASSES, SIDE, SIDE), (table,))
    boxes = _corners(_boxes(rng, 3549)) / SIDE
    classes = rng.integers(0, CLASSES, 3549).astype(np.int32)
    yield Case("boxes and scores, 3549", BoxesScoresHead(), (boxes, _scores(rng, 3549, 1)[:, 0], classes))


def _row_cases(rng: np.random.Generator) -> Iterator[Case]:
    boxes, scores = _boxes(rng, QUERIES), _scores(rng, QUERIES, CLASSES)
    best, unit = scores.max(axis=1), boxes / SIDE
    classes = scores.argmax(axis=1)
    rows = np.hstack([_corners(boxes), best[:, None], classes[:, None].astype(np.float32)])
    yield Case("end to end, 300 rows", EndToEndHead(), (rows,))
    yield Case("RT-DETR, 300 queries, 80 classes", RtDetrHead(CLASSES), (np.hstack([unit, scores]),))
    yield Case("RT-DETR official, 300 queries", OfficialRtDetrHead(), (classes, _corners(boxes), best))
    logits = np.log(scores / (1 - scores))
    yield Case("RF-DETR, 300 queries, 80 classes", RfDetrHead(), (unit, logits))
    rest = np.full((QUERIES, 1), np.log(0.01), np.float32)
    sharp = np.where(scores > 0.4, 0.0, -12.0).astype(np.float32)
    yield Case("DETR, 300 queries, 80 classes", DetrHead(), (np.hstack([sharp, rest]), unit))
    count = np.array([100], np.float32)
    corners = _corners(unit)[:100]
    yield Case(
        "TensorFlow detection, 100 rows",
        TfDetectionHead(),
        (count, corners[:, [1, 0, 3, 2]], best[:100], classes[:100] + 1),
    )
    yield Case(
        "EfficientNMS, 100 rows",
        EfficientNmsHead(),
        (count.astype(np.int32), _corners(boxes)[:100], best[:100], classes[:100]),
    )

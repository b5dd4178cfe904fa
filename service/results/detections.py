"""Converts candidate boxes of one frame to typed detections: threshold, suppression within each class, clipping.

Pure: runs in the worker pool, for one frame at a time; borrows the arrays only for the call.

The score threshold comes first, so that the later steps process tens of boxes rather than thousands. Suppression is
OpenCV's, greedy by falling score; at most MAX_CANDIDATES boxes enter it, so that a threshold of 0 costs a bounded time.
It is one call that releases the interpreter's lock, where numpy needed a dozen: under load each of these waits to get
the lock back.
"""

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from forebay_server.service.errors import CorruptResultError
from forebay_server.service.request import OutputArrays
from forebay_server.service.results.arrays import check_finite, frame_row, labels_of
from forebay_server.service.results.options import ResultOptions
from forebay_server.service.results.task import DetectionTask

MAX_CANDIDATES = 1000  # a picture holds far fewer objects; the lowest scores are left out beyond it
FAR = 1000.0  # frames; OpenCV separates classes by shifting them by the largest coordinate, which costs precision
LARGEST_CLASS_ID = 2**31 - 1


class Box(NamedTuple):
    """Corners of a rectangle; y grows downwards."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float


class Detection(NamedTuple):
    """One detected object.

    Attributes:
        label: name of its class.
        class_id: number of its class.
        score: 0..1.
        box: 0..1 of the frame's width and height, clipped to it.
        box_pixels: the same in pixels of the frame as the client sent it.
    """

    label: str
    class_id: int
    score: float
    box: Box
    box_pixels: Box


def decode_detections(
    outputs: OutputArrays,
    task: DetectionTask,
    options: ResultOptions,
    frame_width: int,
    frame_height: int,
) -> tuple[Detection, ...]:
    """Return the detections of one frame, by falling score.

    Args:
        outputs: the model's outputs for this frame, in the model's order.
        task: the meaning of the outputs.
        options: the stream's thresholds.
        frame_width: pixels of the frame as the client sent it.
        frame_height: as frame_width.

    Raises:
        CorruptResultError: shapes that do not fit together, numbers that are not finite, a negative class.
    """
    score_threshold, iou_threshold, max_results = options.for_detections(task)
    scores, boxes, class_ids = _candidates(outputs, task)
    chosen = np.flatnonzero(scores >= score_threshold)
    if not chosen.size:
        return ()
    chosen = chosen[np.argsort(-scores[chosen], kind="stable")][:MAX_CANDIDATES]
    scores, boxes = scores[chosen], boxes[chosen]
    check_finite(boxes, "boxes")
    class_ids = np.zeros(len(chosen), np.int32) if class_ids is None else class_ids[chosen]
    if not 0 <= class_ids.min() <= class_ids.max() <= LARGEST_CLASS_ID:
        raise CorruptResultError("class ids hold negative numbers, or larger ones than there are classes")
    class_ids = class_ids.astype(np.int32)
    clipped = np.clip(boxes, 0.0, 1.0)
    visible = np.flatnonzero((clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1]))
    kept = visible[suppress(boxes[visible], class_ids[visible], iou_threshold, max_results)]
    pixels = clipped[kept] * np.array([frame_width, frame_height, frame_width, frame_height], np.float32)
    numbers = class_ids[kept].tolist()
    rows = zip(
        labels_of(task.labels, numbers),
        numbers,
        scores[kept].tolist(),
        clipped[kept].tolist(),
        pixels.tolist(),
        strict=True,
    )
    found = [
        Detection(label, number, score, Box(*box), Box(*in_pixels)) for label, number, score, box, in_pixels in rows
    ]
    return tuple(found)


def suppress(
    boxes: NDArray[np.floating[Any]],
    class_ids: NDArray[np.int32],
    iou_threshold: float,
    max_results: int,
) -> NDArray[np.int32]:
    """Return the indices of the boxes to keep: greedy non-maximum suppression within each class.

    Args:
        boxes: shape (n, 4), by falling score, none empty or inverted; coordinates beyond FAR are moved to FAR.
        class_ids: shape (n,), not negative.
        iou_threshold: a box is removed if its IoU with a kept box of its class is above.
        max_results: maximum number of kept boxes.
    """
    if not len(boxes):
        return np.empty(0, np.int32)
    rectangles = np.clip(boxes, -FAR, FAR, dtype=np.float64)
    rectangles[:, 2:] -= rectangles[:, :2]  # widths and heights
    # otherwise negative coordinates would overlap the previous class in OpenCV
    rectangles[:, :2] -= rectangles[:, :2].min()
    ranks = np.arange(len(boxes), 0, -1, dtype=np.float32)  # OpenCV sorts by score
    kept = cv2.dnn.NMSBoxesBatched(rectangles, ranks, class_ids, 0.0, iou_threshold)  # type: ignore[arg-type]
    return np.asarray(kept[:max_results], np.int32)


def _candidates(outputs: OutputArrays, task: DetectionTask) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]:
    scores = frame_row(outputs, task.scores_output, 1, "scores")
    boxes = frame_row(outputs, task.boxes_output, 2, "boxes")
    if boxes.shape != (len(scores), 4):
        raise CorruptResultError(
            f"boxes have shape {list(boxes.shape)}: not 4 numbers for each of {len(scores)} scores"
        )
    class_ids = None
    if task.class_ids_output is not None:
        class_ids = frame_row(outputs, task.class_ids_output, 1, "class ids")
        if len(class_ids) != len(scores):
            raise CorruptResultError(f"{len(class_ids)} class ids for {len(scores)} scores")
    check_finite(scores, "scores")
    return scores, boxes, class_ids

"""Candidate boxes of one frame to typed detections: threshold, suppression within each class, clipping.

Pure: runs in the worker pool, for one frame at a time; borrows the arrays only for the call.

The score threshold comes first, so that the rest sees tens of boxes rather than thousands. Suppression is greedy by
falling score and ends when enough boxes are kept; at most MAX_CANDIDATES boxes enter it, so that a threshold of 0
costs a bounded time.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import CorruptResultError
from service.models.description import DetectionTask
from service.request import OutputArrays
from service.results.arrays import check_finite, frame_row, label_of
from service.results.options import ResultOptions

MAX_CANDIDATES = 1000  # a picture holds far fewer objects; the lowest scores are left out beyond it
BLOCK = 64  # bits of a mask in `_greedy`


class Box(NamedTuple):
    """Corners of a rectangle; y grows downwards."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float


@dataclass(frozen=True, slots=True)
class Detection:
    """One object found.

    Attributes:
        label: name of its class.
        class_id: number of its class.
        score: 0..1.
        box: 0..1 of the frame's width and height, clipped to it.
        box_pixels: the same in pixels of the frame as it was sent.
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
    """Return what was found in one frame, by falling score.

    Args:
        outputs: the model's outputs for this frame, in its order.
        task: what they mean.
        options: the stream's thresholds.
        frame_width: pixels of the frame as it was sent.
        frame_height: likewise.

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
    class_ids = np.zeros(len(chosen), np.int64) if class_ids is None else class_ids[chosen].astype(np.int64)
    check_finite(boxes, "boxes")
    if class_ids.min() < 0:
        raise CorruptResultError("class ids hold negative numbers")
    clipped = np.clip(boxes, 0.0, 1.0)
    visible = np.flatnonzero((clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1]))
    kept = visible[suppress(boxes[visible], class_ids[visible], iou_threshold, max_results)]
    pixels = clipped[kept] * np.array([frame_width, frame_height, frame_width, frame_height], np.float32)
    rows = zip(class_ids[kept].tolist(), scores[kept].tolist(), clipped[kept].tolist(), pixels.tolist(), strict=True)
    return tuple(
        Detection(label_of(task.labels, class_id), class_id, score, Box(*box), Box(*box_pixels))
        for class_id, score, box, box_pixels in rows
    )


def suppress(
    boxes: NDArray[np.floating[Any]],
    class_ids: NDArray[np.int64],
    iou_threshold: float,
    max_results: int,
) -> NDArray[np.intp]:
    """Return the indices of the boxes to keep: greedy non-maximum suppression within each class.

    Works through blocks of BLOCK boxes: what the kept boxes cover goes first, all at once, and only the rest of the
    block is decided one by one, so that the number of numpy calls does not grow with the number of kept boxes.

    Args:
        boxes: shape (n, 4), by falling score, none empty or inverted.
        class_ids: shape (n,).
        iou_threshold: a box goes if its IoU with a kept box of its class is above.
        max_results: stop when so many are kept.
    """
    kept: list[int] = []
    for start in range(0, len(boxes), BLOCK):
        block = np.arange(start, min(start + BLOCK, len(boxes)))
        if kept:
            covered = _overlaps(boxes[kept], class_ids[kept], boxes[block], class_ids[block], iou_threshold)
            block = block[~covered.any(axis=0)]
        here = _overlaps(boxes[block], class_ids[block], boxes[block], class_ids[block], iou_threshold)
        kept.extend(block[_greedy(here)].tolist())
        if len(kept) >= max_results:
            break
    return np.array(kept[:max_results], np.intp)


def _overlaps(
    boxes: NDArray[Any], class_ids: NDArray[Any], other_boxes: NDArray[Any], other_ids: NDArray[Any], iou: float
) -> NDArray[np.bool_]:
    """Return for every pair whether the classes are equal and the IoU is above `iou`; shape (boxes, others)."""
    x_min, y_min, x_max, y_max = np.ascontiguousarray(boxes.T)[:, :, None]
    other_x_min, other_y_min, other_x_max, other_y_max = np.ascontiguousarray(other_boxes.T)[:, None, :]
    common = np.minimum(x_max, other_x_max)
    common -= np.maximum(x_min, other_x_min)
    heights = np.minimum(y_max, other_y_max)
    heights -= np.maximum(y_min, other_y_min)
    np.maximum(common, 0, out=common)
    np.maximum(heights, 0, out=heights)
    common *= heights
    areas = (x_max - x_min) * (y_max - y_min)
    other_areas = (other_x_max - other_x_min) * (other_y_max - other_y_min)
    # common / (areas - common) > iou, without the division
    pairs: NDArray[np.bool_] = common * (1 + iou) > iou * (areas + other_areas)
    pairs &= class_ids[:, None] == other_ids
    return pairs


def _greedy(overlaps: NDArray[np.bool_]) -> list[int]:
    """Return which of at most BLOCK boxes stay: each one that no earlier kept one overlaps. Rows become bit masks."""
    masks = np.zeros((len(overlaps), BLOCK // 8), np.uint8)
    packed = np.packbits(overlaps, axis=1, bitorder="little")
    masks[:, : packed.shape[1]] = packed
    covered = 0
    kept = []
    for i, mask in enumerate(masks.view("<u8")[:, 0].tolist()):
        if not covered >> i & 1:
            kept.append(i)
            covered |= mask
    return kept


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

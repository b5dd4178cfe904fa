"""Converts the outputs of one frame to typed detections: a head's candidates, suppression, clipping.

Pure: runs in the worker pool, for one frame at a time; borrows the arrays only for the call.

The head applies the score threshold first, so that the steps here process tens of boxes rather than thousands, and at
most MAX_CANDIDATES of them.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from forebay_server.service.errors import CorruptResultError
from forebay_server.service.request import OutputArrays
from forebay_server.service.results.arrays import check_finite, labels_of
from forebay_server.service.results.detection import Box, Detection
from forebay_server.service.results.heads.candidates import Candidates
from forebay_server.service.results.options import ResultOptions
from forebay_server.service.results.suppression import suppress
from forebay_server.service.results.task import DetectionTask

LARGEST_CLASS_ID = 2**31 - 1


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
    found = task.head.candidates(outputs, score_threshold)
    if not found.scores.size:
        return ()
    check_finite(found.boxes, "boxes")
    class_ids = _class_ids(found)
    clipped = np.clip(found.boxes, 0.0, 1.0)
    visible = np.flatnonzero((clipped[:, 2] > clipped[:, 0]) & (clipped[:, 3] > clipped[:, 1]))
    kept = visible[suppress(found.boxes[visible], class_ids[visible], iou_threshold, max_results)]
    pixels = clipped[kept] * np.array([frame_width, frame_height, frame_width, frame_height], np.float32)
    numbers = class_ids[kept].tolist()
    return tuple(
        map(
            Detection,
            labels_of(task.labels, numbers),
            numbers,
            found.scores[kept].tolist(),
            map(Box._make, clipped[kept].tolist()),
            map(Box._make, pixels.tolist()),
        )
    )


def _class_ids(found: Candidates) -> NDArray[np.int32]:
    class_ids: NDArray[Any] | None = found.class_ids
    if class_ids is None:
        return np.zeros(len(found.scores), np.int32)
    if not 0 <= class_ids.min() <= class_ids.max() <= LARGEST_CLASS_ID:
        raise CorruptResultError("class ids hold negative numbers, or larger ones than there are classes")
    return class_ids.astype(np.int32, copy=False)

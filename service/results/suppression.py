"""Non-maximum suppression of upright boxes. Pure.

The suppression is OpenCV's, greedy by falling score. It is one call that releases the interpreter's lock, where numpy
needed a dozen: under load each of these waits to get the lock back.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

FAR = 1000.0  # frames; OpenCV separates classes by shifting them by the largest coordinate, which costs precision


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

"""Make tests/model/golden_detections.npz: the boxes of NanoDet-g on the clip, computed independently of the service.

    python -m tools.golden_detections nanodet_g_416.onnx models/pedestrians.mp4 tests/model/golden_detections.npz

Runs the model as it was converted (six heads, normalised float32 planes; see tools/fold_detector.py), and decodes it
box by box in plain Python: no part of it is shared with service/results or with the folded graph. Boxes down to
MARGIN below the threshold are kept, so that a test can tell a box near the threshold from a wrong one; suppression is
greedy by falling score, hence the boxes above are the same as if the threshold were the higher one.

Arrays, one row a box: frame (int16), class_id (uint8), score (float32), box (float32, 4; 0..1, not clipped).
"""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

SIZE = 416
STRIDES = (8, 16, 32)
BINS = 11
CLASSES = 80
MEAN = (103.53, 116.28, 123.675)
STD = (57.375, 57.12, 58.395)
THRESHOLD = 0.4
MARGIN = 0.02
IOU = 0.5

Found = tuple[float, int, tuple[float, float, float, float]]


def frames_of(clip: Path) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames of a clip, blue first."""
    capture = cv2.VideoCapture(str(clip))
    while True:
        is_there, frame = capture.read()
        if not is_there:
            return
        yield frame.astype(np.uint8, copy=False)


def decode(heads: list[NDArray[Any]]) -> list[Found]:
    """Return the boxes of one frame, by falling score, after suppression within each class."""
    scores_by_cells = {head.shape[1]: head[0] for head in heads if head.shape[2] == CLASSES}
    sides_by_cells = {head.shape[1]: head[0] for head in heads if head.shape[2] == 4 * BINS}
    found: list[Found] = []
    for stride in STRIDES:
        across = SIZE // stride
        cells = across * across
        for cell in range(cells):
            class_id = int(np.argmax(scores_by_cells[cells][cell]))
            score = float(scores_by_cells[cells][cell][class_id])
            if score < THRESHOLD - MARGIN:
                continue
            left, top, right, bottom = (
                _expected(sides_by_cells[cells][cell][side * BINS : (side + 1) * BINS]) * stride for side in range(4)
            )
            x, y = (cell % across + 0.5) * stride, (cell // across + 0.5) * stride
            corners = ((x - left) / SIZE, (y - top) / SIZE, (x + right) / SIZE, (y + bottom) / SIZE)
            found.append((score, class_id, corners))
    kept: list[Found] = []
    for candidate in sorted(found, key=lambda item: -item[0]):
        if all(other[1] != candidate[1] or iou(other[2], candidate[2]) < IOU for other in kept):
            kept.append(candidate)
    return kept


def iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Return the intersection over the union of two boxes."""
    common = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def _expected(logits: NDArray[Any]) -> float:
    weights = [math.exp(float(logit) - float(logits.max())) for logit in logits]
    return sum(i * weight for i, weight in enumerate(weights)) / sum(weights)


def make(model: Path, clip: Path, target: Path) -> None:
    """Run the model on every frame and write what it finds."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    rows: list[tuple[int, Found]] = []
    for index, frame in enumerate(frames_of(clip)):
        small = cv2.resize(frame, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR).astype(np.float32)
        planes = ((small - np.array(MEAN, np.float32)) / np.array(STD, np.float32)).transpose(2, 0, 1)[None]
        rows.extend((index, found) for found in decode(session.run(None, {name: np.ascontiguousarray(planes)})))
    np.savez_compressed(
        target,
        frame=np.array([index for index, _ in rows], np.int16),
        class_id=np.array([found[1] for _, found in rows], np.uint8),
        score=np.array([found[0] for _, found in rows], np.float32),
        box=np.array([found[2] for _, found in rows], np.float32),
    )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Make the golden detections of the clip.")
    parser.add_argument("model", type=Path)
    parser.add_argument("clip", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    make(arguments.model, arguments.clip, arguments.target)


if __name__ == "__main__":
    main()

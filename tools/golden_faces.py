"""Make tests/model/golden_faces.npz: results of BlazeFace for pictures of noise, decoded independently of the graph.

    python -m tools.golden_faces blazeface_short_128.onnx tests/model/golden_faces.npz

Runs the model as it was converted (see tools/fold_faces.py) on seeded random pictures and decodes its regressors anchor
by anchor in plain Python. Only every STEP-th anchor is kept: the file stays small, both grids and all anchors of a
cell are covered.

Arrays: seed (int64), anchor (int16, k), box (float32, pictures x k x 4), score (float32, pictures x k).
"""

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

SIZE = 128
SEED = 20261123
PICTURES = 4
STEP = 13


def make(model: Path, target: Path) -> None:
    """Run the model on the pictures and write what it gives."""
    pictures = np.random.default_rng(SEED).integers(0, 256, (PICTURES, SIZE, SIZE, 3), np.uint8)
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    values = pictures.astype(np.float32) / 127.5 - 1
    regressors, logits = session.run(["regressors", "classificators"], {session.get_inputs()[0].name: values})
    centres = [
        ((x + 0.5) / across, (y + 0.5) / across)
        for across, anchors in ((16, 2), (8, 6))
        for y in range(across)
        for x in range(across)
        for _ in range(anchors)
    ]
    chosen = range(0, len(centres), STEP)
    boxes = [[_corners(centres[i], regressors[picture, i]) for i in chosen] for picture in range(PICTURES)]
    scores = [[1 / (1 + math.exp(-float(logits[picture, i, 0]))) for i in chosen] for picture in range(PICTURES)]
    np.savez_compressed(
        target,
        seed=np.array(SEED, np.int64),
        anchor=np.array(chosen, np.int16),
        box=np.array(boxes, np.float32),
        score=np.array(scores, np.float32),
    )


def _corners(anchor: tuple[float, float], regressor: NDArray[Any]) -> tuple[float, float, float, float]:
    x, y, width, height = (float(value) / SIZE for value in regressor[:4])
    x, y = x + anchor[0], y + anchor[1]
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Make the golden outputs of the face detector.")
    parser.add_argument("model", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    make(arguments.model, arguments.target)


if __name__ == "__main__":
    main()

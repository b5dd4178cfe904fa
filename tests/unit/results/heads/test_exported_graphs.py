"""Graphs that end as real exports do, run by ONNX Runtime: objects planted in a frame come out where they were."""

import math

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from forebay_server.service.pictures.picture_input import PictureInput
from forebay_server.service.results.heads.detr import DetrHead
from forebay_server.service.results.heads.end_to_end import EndToEndHead
from forebay_server.service.results.heads.yolo import YoloHead
from forebay_server.service.results.heads.yolo_objectness import ObjectnessHead, YoloxHead
from forebay_server.service.results.options import ResultOptions
from forebay_server.service.results.result import make_result
from forebay_server.service.results.task import DetectionTask
from tests.support.detection_oracle import placement

WIDTH, HEIGHT, CLASSES = 96, 64, 3
FRAME = (1280, 720)
PLACE = placement("letterbox", *FRAME)
PLANTED = (  # class, score, corners in pixels of the frame
    (2, 0.9, (100.0, 50.0, 400.0, 350.0)),
    (0, 0.8, (500.0, 300.0, 1000.0, 700.0)),
    (2, 0.6, (1000.0, 40.0, 1200.0, 260.0)),
)
STRIDES = (8, 16, 32)
CELLS = [
    (column, row, stride) for stride in STRIDES for row in range(HEIGHT // stride) for column in range(WIDTH // stride)
]


def logit(score):
    return math.log(score / (1 - score))


def centered(corners):
    """cx, cy, w, h in the model's picture."""
    scale_x, scale_y, left, top = PLACE
    x0, y0, x1, y1 = corners
    x0, x1, y0, y1 = x0 * scale_x + left, x1 * scale_x + left, y0 * scale_y + top, y1 * scale_y + top
    return (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0


def planted(rng, cells):
    """Rows of random boxes and low logits, and the planted objects in distinct cells."""
    count = len(cells)
    boxes = np.stack([rng.uniform(0, WIDTH, count), rng.uniform(0, HEIGHT, count), *rng.uniform(4, 30, (2, count))], 1)
    logits = rng.uniform(-9, -4, (count, CLASSES))
    for place, (class_id, score, corners) in zip(rng.choice(count, len(PLANTED), replace=False), PLANTED, strict=True):
        boxes[place] = centered(corners)
        logits[place, class_id] = logit(score)
    return boxes, logits


class Graph:
    """A graph under construction; values are named by their order."""

    def __init__(self):
        self.nodes, self.initializers = [], []

    def constant(self, values, dtype=np.float32):
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def add(self, operator, *inputs, **attributes):
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def run(self, *outputs):
        """Outputs that depend on the picture, as a network's do: its mean, times zero, is added."""
        nothing = self.add("Mul", self.add("ReduceMean", "images", keepdims=0), self.constant(0))
        names = [f"output{index}" for index in range(len(outputs))]
        for name, output in zip(names, outputs, strict=True):
            self.nodes.append(helper.make_node("Add", [output, nothing], [name]))
        graph = helper.make_graph(
            self.nodes,
            "head",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, HEIGHT, WIDTH])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, None, None]) for name in names],
            self.initializers,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return tuple(session.run(None, {"images": np.zeros((1, 3, HEIGHT, WIDTH), np.float32)}))


def yolo(rng):
    """As Detect of YOLOv8: distances to the four sides of the anchor's center, in cells; sigmoid of the classes."""
    graph = Graph()
    boxes, logits = planted(rng, CELLS)
    stride = np.array([cell[2] for cell in CELLS], np.float32)
    center = (np.array([cell[:2] for cell in CELLS]) + 0.5).T
    near = center - (boxes[:, :2] - boxes[:, 2:] / 2).T / stride
    far = (boxes[:, :2] + boxes[:, 2:] / 2).T / stride - center
    anchors = graph.constant(center[None])
    low = graph.add("Sub", anchors, graph.constant(near[None]))
    high = graph.add("Add", anchors, graph.constant(far[None]))
    middle = graph.add("Div", graph.add("Add", low, high), graph.constant(2))
    size = graph.add("Sub", high, low)
    scaled = graph.add("Mul", graph.add("Concat", middle, size, axis=1), graph.constant(stride))
    scores = graph.add("Sigmoid", graph.constant(logits.T[None]))
    return YoloHead(CLASSES), graph.run(graph.add("Concat", scaled, scores, axis=1))


def objectness(rng):
    """As Detect of YOLOv5: three anchors a cell, xy = (2 s - 0.5 + cell) * stride, wh = (2 s)^2 * anchor."""
    graph = Graph()
    cells = [cell for cell in CELLS for _ in range(3)]
    boxes, logits = planted(rng, cells)
    stride = np.array([[cell[2]] for cell in cells], np.float32)
    column_row = np.array([cell[:2] for cell in cells], np.float32)
    anchor = np.tile(np.array([[20, 20], [40, 40], [80, 80]], np.float32), (len(CELLS), 1))
    raw_xy = (boxes[:, :2] / stride - column_row + 0.5) / 2
    raw_wh = np.sqrt(boxes[:, 2:] / anchor) / 2
    two = graph.constant(2)
    xy = graph.add("Sub", graph.add("Mul", graph.constant(raw_xy[None]), two), graph.constant(0.5))
    xy = graph.add("Mul", graph.add("Add", xy, graph.constant(column_row)), graph.constant(stride))
    wh = graph.add(
        "Mul", graph.add("Pow", graph.add("Mul", graph.constant(raw_wh[None]), two), two), graph.constant(anchor)
    )
    # an object's score is the product of both sigmoids
    is_object = graph.add("Sigmoid", graph.constant(np.full((1, len(cells), 1), logit(0.95))))
    scores = 1 / (1 + np.exp(-logits)) / 0.95
    classes = graph.add("Sigmoid", graph.constant(np.log(scores / (1 - scores))[None]))
    return ObjectnessHead(CLASSES), graph.run(graph.add("Concat", xy, wh, is_object, classes, axis=2))


def yolox(rng):
    """As YOLOX exports by default: the grid is not decoded."""
    graph = Graph()
    boxes, logits = planted(rng, CELLS)
    stride = np.array([[cell[2]] for cell in CELLS])
    relative = np.concatenate(
        [boxes[:, :2] / stride - np.array([cell[:2] for cell in CELLS]), np.log(boxes[:, 2:] / stride)], 1
    )
    scores = graph.add("Sigmoid", graph.constant(logits[None]))
    ones = graph.constant(np.ones((1, len(CELLS), 1)))
    output = graph.add("Concat", graph.constant(relative[None]), ones, scores, axis=2)
    return YoloxHead(CLASSES, WIDTH, HEIGHT), graph.run(output)


def end_to_end(rng):
    """As YOLOv10: the best of all anchors and classes by TopK, then gathered."""
    graph = Graph()
    boxes, logits = planted(rng, CELLS)
    corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)
    scores = graph.add("Sigmoid", graph.constant(logits.reshape(1, -1)))
    best, place = "best", "place"
    graph.nodes.append(helper.make_node("TopK", [scores, graph.constant([50], np.int64)], [best, place], axis=1))
    classes = graph.constant(CLASSES, np.int64)
    anchor, class_id = graph.add("Div", place, classes), graph.add("Mod", place, classes)
    axis = graph.constant([2], np.int64)
    chosen = graph.add("Gather", graph.constant(corners), graph.add("Squeeze", anchor, graph.constant([0], np.int64)))
    chosen = graph.add("Unsqueeze", chosen, graph.constant([0], np.int64))
    columns = [graph.add("Unsqueeze", each, axis) for each in (best, graph.add("Cast", class_id, to=TensorProto.FLOAT))]
    return EndToEndHead(), graph.run(graph.add("Concat", chosen, *columns, axis=2))


def detr(rng):
    """As DETR: logits with a last class for no object, boxes by a sigmoid, 0..1."""
    graph = Graph()
    boxes, logits = planted(rng, CELLS)
    shares = np.exp(logits) / (1 + np.exp(logits))
    rest = np.maximum(1 - shares.sum(1, keepdims=True), 1e-3)
    unit = np.clip(boxes / [WIDTH, HEIGHT, WIDTH, HEIGHT], 1e-4, 1 - 1e-4)
    raw = graph.constant(np.log(unit / (1 - unit))[None])
    return DetrHead(), graph.run(
        graph.constant(np.log(np.concatenate([shares, rest], 1))[None]), graph.add("Sigmoid", raw)
    )


@pytest.mark.parametrize("export", [yolo, objectness, yolox, end_to_end, detr])
@pytest.mark.parametrize("seed", range(3))
def test_planted_objects_are_found_where_they_are_in_the_frame(export, seed):
    head, outputs = export(np.random.default_rng(seed))
    task = DetectionTask(("car", "dog", "person"), head=head)
    picture = PictureInput(WIDTH, HEIGHT, "RGB", resize="letterbox")
    found = make_result(task, outputs, ResultOptions(), FRAME, picture)
    assert [(item.label, item.score) for item in found] == [
        (task.labels[class_id], pytest.approx(score, abs=2e-3)) for class_id, score, _ in PLANTED
    ]
    for item, (_, _, corners) in zip(found, PLANTED, strict=True):
        assert item.box_pixels == pytest.approx(corners, abs=0.5)

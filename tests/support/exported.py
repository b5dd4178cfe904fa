"""Model files as exporters write them: real graphs with chosen outputs, and the exporters' metadata."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

NAMES = ("person", "dog, brown")
METADATA = {
    "task": "detect",
    "stride": "32",
    "names": repr(dict(enumerate(NAMES))),
    "imgsz": "[64, 64]",
    "channels": "3",
    "head": "Detect",
    "end2end": "False",
}


def yolo(
    path: Path,
    rows: Sequence[Sequence[float]],
    metadata: Mapping[str, str] = METADATA,
    sides: Sequence[int | str] = (64, 64),
    batch: int | str = 1,
    anchor_count: int = 84,
) -> Path:
    """Write a raw head [batch, 4 + classes, anchors]: the first anchors are `rows`, all others have no object.

    The outputs depend on the picture: the scores are those of `rows` times its mean value, which is 1 for white.
    """
    anchors = np.zeros((len(rows[0]), anchor_count), np.float32)
    anchors[:, : len(rows)] = np.array(rows, np.float32).T
    boxes, scores = anchors[None, :4], anchors[None, 4:]
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Squeeze", ["mean", "axis"], ["flat"]),
        helper.make_node("Mul", ["flat", "scores"], ["scaled"]),
        helper.make_node("Mul", ["flat", "nothing"], ["zero"]),
        helper.make_node("Add", ["zero", "boxes"], ["all_boxes"]),
        helper.make_node("Concat", ["all_boxes", "scaled"], ["output0"], axis=1),
    ]
    constants = {"axis": np.array([3]), "scores": scores, "boxes": boxes, "nothing": np.zeros(1, np.float32)}
    channels: list[int | str] = list(anchors.shape) if batch == 1 else ["features", "anchors"]
    return _save(path, nodes, constants, [batch, 3, *sides], {"output0": [batch, *channels]}, metadata)


def constant(path: Path, outputs: Mapping[str, NDArray[np.float32]], side: int, input_name: str = "images") -> Path:
    """Write a model [batch, 3, side, side] without metadata that gives `outputs` [...] for every row."""
    nodes = [
        helper.make_node("ReduceMean", [input_name], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "nothing"], ["zero"]),
    ]
    constants: dict[str, NDArray[np.generic]] = {"nothing": np.zeros(1, np.float32)}
    for name, values in outputs.items():
        constants[f"{name}_axes"] = np.array([-1, *[1] * values.ndim])
        constants[f"{name}_values"] = values[None]
        nodes.append(helper.make_node("Reshape", ["zero", f"{name}_axes"], [f"{name}_zero"]))
        nodes.append(helper.make_node("Add", [f"{name}_zero", f"{name}_values"], [name]))
    shapes = {name: ["batch", *values.shape] for name, values in outputs.items()}
    return _save(path, nodes, constants, ["batch", 3, side, side], shapes, {}, input_name)


def _save(
    path: Path,
    nodes: list[onnx.NodeProto],
    constants: Mapping[str, NDArray[np.generic]],
    shape: Sequence[int | str],
    outputs: Mapping[str, Sequence[int | str]],
    metadata: Mapping[str, str],
    input_name: str = "images",
) -> Path:
    graph = helper.make_graph(
        nodes,
        "exported",
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, output) for name, output in outputs.items()],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, path)
    return path


def objects(path: Path, boxes: Sequence[Sequence[float]], side: int, few: int) -> Path:
    """Write a detector [1, 3, side, side] as torchvision's are: a row for each object that it finds.

    A white picture has all `boxes`, any other the first `few`; scores fall from 0.9 to 0.6, labels count from 1.
    """
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Greater", ["mean", "nearly_white"], ["is_white"]),
        helper.make_node("Where", ["is_white", "all", "few"], ["count"]),
    ]
    count = len(boxes)
    values: dict[str, NDArray[np.generic]] = {
        "boxes": np.array(boxes, np.float32),
        "scores": np.linspace(0.9, 0.6, count, dtype=np.float32),
        "labels": np.arange(1, count + 1),
    }
    constants: dict[str, NDArray[np.generic]] = {
        "nearly_white": np.array(0.99, np.float32),
        "all": np.array([count]),
        "few": np.array([few]),
        "zero": np.array([0]),
        **{f"{name}_all": rows for name, rows in values.items()},
    }
    nodes += [helper.make_node("Slice", [f"{name}_all", "zero", "count", "zero"], [name]) for name in values]
    graph = helper.make_graph(
        nodes,
        "exported",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, side, side])],
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(rows.dtype), ["n", *rows.shape[1:]])
            for name, rows in values.items()
        ],
        [numpy_helper.from_array(rows, name) for name, rows in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))
    return path

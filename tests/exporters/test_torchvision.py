"""Models of torchvision with the documented parameters: first classes of classifiers, objects of detectors."""

import json

import numpy as np
import pytest

from tests.exporters.comparison import Found, Report
from tests.exporters.environment import exports_folder, pictures, run
from tests.exporters.served import answers, found_in
from tests.support.loops import on_loop

pytestmark = pytest.mark.exporters

NAMES = (
    *("resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1"),
    *("regnet_y_400mf", "convnext_tiny", "efficientnet_b0"),
)
DETECTORS = ("ssdlite320_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_320_fpn")
SIDE = 320
LEAST_COUNT = 20
CLASS_COUNT = 5
CLASS_SCORE = 0.02
"""Relative."""


@pytest.fixture(scope="session")
def exports(tmp_path_factory):
    folder = exports_folder(tmp_path_factory, "torchvision")
    missing = [name for name in (*NAMES, *DETECTORS) if not (folder / f"{name}.npz").exists()]
    run("export_torchvision.py", folder / "pictures", folder, json.dumps(missing))
    return folder


def configuration(numbers):
    """The documented parameters: what an operator writes for these weights."""
    values = {
        "task": "classification",
        "activation": "softmax",
        "resize": "center_crop",
        "resize_to": numbers["resize_to"],
        "interpolation": numbers["interpolation"],
        "scale": "1/255",
        "mean": ",".join(map(str, numbers["mean"])),
        "std": ",".join(map(str, numbers["std"])),
    }
    return written(values)


def written(values):
    return "".join(
        f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n' for key, value in values.items()
    )


@pytest.mark.parametrize("name", NAMES)
@on_loop(guard_s=600)
async def test_the_first_classes_are_those_of_the_model_in_torch(exports, name):
    file, saved = exports / f"{name}.onnx", np.load(exports / f"{name}.npz")
    file.with_suffix(".pbtxt").write_text(configuration(json.loads(file.with_suffix(".json").read_text())))
    results = await answers(file, pictures())
    for picture, result in results.items():
        theirs = saved[picture]
        first = np.argsort(-theirs, kind="stable")[:CLASS_COUNT]
        assert [row.class_id for row in result.classes] == first.tolist(), picture
        assert [row.score for row in result.classes] == pytest.approx(theirs[first].tolist(), rel=CLASS_SCORE), picture


@pytest.mark.parametrize("name", DETECTORS)
@on_loop(guard_s=600)
async def test_objects_are_those_of_the_exported_file(exports, name, record_property):
    """As many outputs as objects: `output_rows` is the parameter that `models check` asks for."""
    file, saved = exports / f"{name}.onnx", np.load(exports / f"{name}.npz")
    file.with_suffix(".pbtxt").write_text(written({"task": "detection", "scale": "1/255", "output_rows": 300}))
    sent = pictures()
    results = await answers(file, sent, score_threshold=0.25, max_results=300)
    report = Report()
    for picture, result in results.items():
        height, width = sent[picture].shape[:2]
        boxes = saved[f"boxes {picture}"] * np.array([width, height, width, height], np.float32) / SIDE
        theirs = Found(saved[f"scores {picture}"], saved[f"labels {picture}"], boxes)
        report.add(picture, theirs, found_in(result))
    record_property("report", str(report))
    assert report.count >= LEAST_COUNT * len(results)
    assert not report.faults, "\n".join([f"{len(report.faults)} faults: {report}", *report.faults[:20]])

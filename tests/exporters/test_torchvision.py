"""Classifiers of torchvision with the parameters of their weights' own preprocessing: the first classes and scores."""

import json

import numpy as np
import pytest

from tests.exporters.environment import exports_folder, pictures, run
from tests.exporters.served import answers
from tests.support.loops import on_loop

pytestmark = pytest.mark.exporters

NAMES = (
    *("resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1"),
    *("regnet_y_400mf", "convnext_tiny", "efficientnet_b0"),
)
CLASS_COUNT = 5
CLASS_SCORE = 0.02
"""Relative."""


@pytest.fixture(scope="session")
def exports(tmp_path_factory):
    folder = exports_folder(tmp_path_factory, "torchvision")
    missing = [name for name in NAMES if not (folder / f"{name}.npz").exists()]
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

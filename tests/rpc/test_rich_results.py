"""Keypoints, rotated boxes and masks, from models as they are exported to the client library, over a real server."""

import numpy as np
import pytest
from onnx import helper, numpy_helper

import forebay.aio
from tests.support import models
from tests.support.loops import on_loop
from tests.support.real_server import real_server

SIDE = 64
ANCHORS = 84  # of 64 x 64 pixels at strides 8, 16 and 32
CONFIG = """
backend: "onnxruntime"
max_batch_size: 4
parameters {{ key: "task" value {{ string_value: "{task}" }} }}
parameters {{ key: "head" value {{ string_value: "yolo" }} }}
parameters {{ key: "labels" value {{ string_value: "person" }} }}
parameters {{ key: "resize" value {{ string_value: "letterbox" }} }}
parameters {{ key: "scale" value {{ string_value: "1/255" }} }}
parameters {{ key: "color_order" value {{ string_value: "RGB" }} }}
{more}
"""
POSE = """
parameters { key: "keypoint_shape" value { string_value: "2x3" } }
parameters { key: "keypoint_names" value { string_value: "nose, elbow" } }
"""
BOX = (32.0, 32.0, 32.0, 16.0, 0.9)  # center, size and score of the one object, in the model's picture


def anchors(*extras):
    """An output [values, ANCHORS] with one object."""
    values = np.zeros((5 + len(extras), ANCHORS), np.float32)
    values[:, 7] = (*BOX, *extras)
    return values


def model(*outputs):
    """A model of pictures that finds the same in all of them."""
    shapes = [output.shape for output in outputs]
    nodes = [
        helper.make_node("ReduceMax", ["images"], ["each"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Mul", ["each", "zero"], ["nothing"]),
    ]
    weights = [numpy_helper.from_array(np.zeros((1, 1, 1, 1), np.float32), "zero")]
    for index, output in enumerate(outputs):
        flat = "flat" if output.ndim == 2 else "nothing"
        weights.append(numpy_helper.from_array(output[None], f"constant{index}"))
        nodes.append(helper.make_node("Add", [flat, f"constant{index}"], [f"output{index}"]))
    weights.append(numpy_helper.from_array(np.array([0, 1, 1], np.int64), "shape"))
    nodes.insert(2, helper.make_node("Reshape", ["nothing", "shape"], ["flat"]))
    named = [models.tensor(f"output{index}", ("batch", *shape)) for index, shape in enumerate(shapes)]
    return models.build(nodes, [models.tensor("images", ("batch", 3, SIDE, SIDE))], named, weights)


def repository(folder, task, built, more=""):
    (folder / "best" / "1").mkdir(parents=True)
    models.save(built, folder / "best" / "1" / "model.onnx")
    (folder / "best" / "config.pbtxt").write_text(CONFIG.format(task=task, more=more))
    return folder


async def found_in(repository, **keywords):
    """What the one picture, twice as large as the model's, has; and the stream's grant."""
    picture = np.zeros((2 * SIDE, 2 * SIDE, 3), np.uint8)
    async with real_server(repository) as running, forebay.aio.Client(running.address) as client:
        stream = client.stream("door", model="best", delivery="every", **keywords)
        await stream.send(picture)
        result = await stream.receive()
        await stream.close()
    assert result.is_ok, result.message
    (found,) = result.detections
    box = found.box_pixels
    assert found.label == "person"
    return found, (box.x_min, box.y_min, box.x_max, box.y_max), stream.opened


@on_loop
async def test_a_pose_model_gives_named_keypoints(tmp_path):
    built = model(anchors(20, 30, 0.75, 40, 35, 0.25))
    found, box, opened = await found_in(repository(tmp_path, "pose", built, POSE))
    assert box == pytest.approx((32, 48, 96, 80), abs=0.01)
    assert (opened.labels, opened.keypoint_names) == (("person",), ("nose", "elbow"))
    points = [(point.x, point.y, point.score) for point in found.keypoints]
    assert np.array(points) == pytest.approx(np.array([(40, 60, 0.75), (80, 70, 0.25)]), abs=0.01)


@on_loop
async def test_an_oriented_model_gives_a_rotated_box(tmp_path):
    found, _, _ = await found_in(repository(tmp_path, "oriented", model(anchors(np.pi / 2))))
    rotated = found.rotated_box
    assert (rotated.cx, rotated.cy) == pytest.approx((64, 64), abs=0.01)
    corners = np.array(rotated.corners)
    assert corners.min(axis=0) == pytest.approx((48, 32), abs=0.1)
    assert corners.max(axis=0) == pytest.approx((80, 96), abs=0.1)


@pytest.mark.parametrize("masks", [None, "polygons", "run_lengths"])
@on_loop
async def test_a_segmentation_model_gives_masks_to_streams_that_ask(tmp_path, masks):
    prototypes = np.full((2, SIDE // 4, SIDE // 4), -1.0, np.float32)
    prototypes[0, :, 8:] = 1.0  # the right half of every picture
    built = model(anchors(1.0, 0.0), prototypes)
    found, _, _ = await found_in(repository(tmp_path, "segmentation", built), masks=masks)
    if masks is None:
        assert found.mask is None
    elif masks == "polygons":
        (polygon,) = found.mask.polygons
        assert polygon.min(axis=0) == pytest.approx((64, 48), abs=4)
        assert polygon.max(axis=0) == pytest.approx((96, 80), abs=4)
    else:
        inside = found.mask.run_lengths.to_array()
        assert inside.shape == (2 * SIDE, 2 * SIDE)
        assert inside[50:78, 68:94].all()
        assert not inside[:, :60].any()
        assert not inside[:46].any()

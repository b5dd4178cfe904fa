"""The bundled face detector against golden outputs of the model it was made from, and on a face."""

import cv2
import numpy as np
import pytest

from forebay_server.service.results.options import ResultOptions
from forebay_server.service.results.result import make_result
from tests.model.bundled import HERE, open_model
from tests.model.test_detector import iou

FACE = (0.35, 0.16, 0.53, 0.34)  # where the face of astronaut.jpg is, 0..1


@pytest.fixture(scope="module")
def faces():
    return open_model("faces")


def detect(model, frame):
    height, width = frame.shape[:2]
    outputs = model.run(model.prepare(frame)[None])
    return make_result(model.description.task, outputs, ResultOptions(), (width, height))


def test_outputs_agree_with_the_golden_ones_on_noise(faces):
    golden = np.load(HERE / "golden_faces.npz")
    scores = golden["score"]
    pictures = np.random.default_rng(int(golden["seed"])).integers(0, 256, (len(scores), 128, 128, 3), np.uint8)
    boxes, ours = faces.run(pictures)
    np.testing.assert_allclose(boxes[:, golden["anchor"]], golden["box"], atol=1e-4)
    np.testing.assert_allclose(ours[:, golden["anchor"]], scores, atol=1e-4)


def test_a_face_is_found_once_and_where_it_is(faces):
    (found,) = detect(faces, cv2.imread(str(HERE / "astronaut.jpg")))
    assert found.label == "face"
    assert found.score > 0.85
    assert iou(found.box, FACE) > 0.8


def test_no_face_is_found_where_there_is_none(faces):
    assert detect(faces, np.full((240, 320, 3), 127, np.uint8)) == ()


@pytest.mark.parametrize("size", [2, 4, 8])
def test_a_batch_gives_what_its_pictures_give_alone(faces, size):
    pictures = np.random.default_rng(size).integers(0, 256, (size, 128, 128, 3), np.uint8)
    together = faces.run(pictures)
    for row, picture in enumerate(pictures):
        for batched, alone in zip(together, faces.run(picture[None]), strict=True):
            np.testing.assert_allclose(batched[row], alone[0], atol=1e-5)

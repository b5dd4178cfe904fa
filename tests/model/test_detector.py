"""The bundled detector against golden boxes of the model it was made from. About 15 s of CPU time."""

from itertools import islice

import numpy as np
import pytest

from forebay_server.service.results.options import ResultOptions
from forebay_server.service.results.result import make_result
from tests.model.bundled import HERE, clip_frames, open_model

THRESHOLD = 0.4
MARGIN = 0.02
LEAST_IOU = 0.9
FRAMES = 200


@pytest.fixture(scope="module")
def detector():
    return open_model("detector")


def detect(model, frame, score_threshold=None):
    height, width = frame.shape[:2]
    outputs = model.run(model.prepare(frame)[None])
    return make_result(model.description.task, outputs, ResultOptions(score_threshold), (width, height))


def iou(a, b):
    common = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def is_matched(found, others):
    class_id, score, box = found
    return any(
        class_id == other_id and abs(score - other_score) <= MARGIN and iou(box, other_box) >= LEAST_IOU
        for other_id, other_score, other_box in others
    )


def unmatched(ours, golden):
    """Return the boxes clearly above the threshold on either side without a counterpart on the other."""
    clear = THRESHOLD + MARGIN
    missing = [box for box in golden if box[1] >= clear and not is_matched(box, ours)]
    extra = [box for box in ours if box[1] >= clear and not is_matched(box, golden)]
    return missing, extra


@pytest.mark.slow
def test_boxes_agree_with_the_golden_ones_on_every_frame_of_the_clip(detector):
    golden = np.load(HERE / "golden_detections.npz")
    frames = people = 0
    for index, frame in enumerate(clip_frames()):
        ours = [(found.class_id, found.score, found.box) for found in detect(detector, frame, THRESHOLD - MARGIN)]
        rows = np.flatnonzero(golden["frame"] == index)
        expected = [
            (int(golden["class_id"][i]), float(golden["score"][i]), golden["box"][i].clip(0, 1).tolist()) for i in rows
        ]
        assert unmatched(ours, expected) == ([], []), f"frame {index}"
        frames += 1
        people += any(class_id == 0 and score >= THRESHOLD for class_id, score, _ in ours)
    assert frames == FRAMES
    assert people >= 0.95 * FRAMES


def test_the_model_default_is_the_threshold_of_its_configuration(detector):
    frame = next(clip_frames())
    assert detect(detector, frame) == detect(detector, frame, THRESHOLD)


def test_labels_and_pixels_belong_to_the_frame(detector):
    frame = next(clip_frames())
    results = detect(detector, frame)
    assert {"person", "truck"} <= {found.label for found in results}
    for found in results:
        assert found.label == detector.description.task.labels[found.class_id]
        assert 0 <= found.box.x_min < found.box.x_max <= 1
        assert np.allclose(found.box_pixels, np.multiply(found.box, (768, 576, 768, 576)))


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4, 8])
def test_a_batch_gives_what_its_frames_give_alone(detector, size):
    pictures = np.stack([detector.prepare(frame) for frame in islice(clip_frames(), size)])
    together = detector.run(pictures)
    for row in (0, size - 1):
        boxes, scores, class_ids = detector.run(pictures[row][None])
        np.testing.assert_allclose(together[0][row], boxes[0], atol=1e-5)
        np.testing.assert_allclose(together[1][row], scores[0], atol=1e-5)
        is_clear = scores[0] > 0.05  # where no class fits, which one is best is rounding
        np.testing.assert_array_equal(together[2][row][is_clear], class_ids[0][is_clear])

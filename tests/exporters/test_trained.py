"""A trained YOLOv8 with an open height and width, from the wheel of nudenet: its own letterbox and suppression here."""

import cv2
import numpy as np
import onnxruntime
import pytest

from tests.exporters.comparison import Found, Report, ious
from tests.exporters.environment import packages, pictures
from tests.exporters.served import answers, found_in
from tests.support.loops import on_loop

pytestmark = pytest.mark.exporters

SIZE, GREY = 320, 114
LEAST_SCORE, IOU_THRESHOLD = 0.01, 0.45
COMPARED_SCORE, LEAST_COUNT = 0.02, 10


def letterboxed(picture):
    """The model's input, and the way back of a box."""
    height, width = picture.shape[:2]
    ratio = min(SIZE / width, SIZE / height)
    sides = round(width * ratio), round(height * ratio)
    left, top = ((SIZE - side) // 2 for side in sides)
    whole = np.full((SIZE, SIZE, 3), GREY, np.uint8)
    whole[top : top + sides[1], left : left + sides[0]] = cv2.resize(picture, sides)
    scale = np.array([sides[0] / width, sides[1] / height] * 2)
    values = whole[..., ::-1].transpose(2, 0, 1)[None].astype(np.float32) / 255
    return values, lambda box: np.clip((box - [left, top] * 2) / scale, 0, [width, height] * 2)


def reference(session, picture):
    """Objects by the rules that Ultralytics documents, one after the other."""
    values, to_frame = letterboxed(picture)
    rows = session.run(None, {"images": values})[0][0].T
    kept = []
    for row in sorted(rows, key=lambda row: -row[4:].max()):
        score, class_id = float(row[4:].max()), int(row[4:].argmax())
        if score < LEAST_SCORE:
            break
        box = np.concatenate([row[:2] - row[2:4] / 2, row[:2] + row[2:4] / 2])
        same = np.array([other for other, _, its_class in kept if its_class == class_id]).reshape(-1, 4)
        if (ious(box, same) <= IOU_THRESHOLD).all():
            kept.append((box, score, class_id))
    boxes = np.array([to_frame(box) for box, _, _ in kept], np.float32).reshape(-1, 4)
    return Found(np.array([score for _, score, _ in kept]), np.array([class_id for *_, class_id in kept]), boxes)


@on_loop(guard_s=300)
async def test_a_trained_model_finds_what_an_independent_reading_of_it_finds():
    file = packages() / "nudenet" / "320n.onnx"
    session = onnxruntime.InferenceSession(str(file))
    sent = pictures()
    results = await answers(file, sent, score_threshold=LEAST_SCORE, iou_threshold=IOU_THRESHOLD, max_results=300)
    report = Report(COMPARED_SCORE)
    for name, result in results.items():
        report.add(name, reference(session, sent[name]), found_in(result))
    assert report.count >= LEAST_COUNT
    assert not report.faults, report

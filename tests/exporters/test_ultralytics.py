"""Exports of Ultralytics without a configuration: Forebay's answers are Ultralytics' predictions with the same file."""

import json

import numpy as np
import pytest

from forebay.wire import frames_pb2 as pb
from tests.exporters.comparison import MAX_RESULTS, SCORE, Found, Report
from tests.exporters.environment import pictures, run, write_pictures
from tests.exporters.served import answers, found_in
from tests.support.loops import on_loop

pytestmark = pytest.mark.exporters

JOBS = {
    "v8": ["yolov8n.yaml", {}],
    "v8-seg": ["yolov8n-seg.yaml", {}],
    "v8-pose": ["yolov8n-pose.yaml", {}],
    "v9": ["yolov9t.yaml", {}],
    "v10": ["yolov10n.yaml", {}],
    "v10-end2end": ["yolov10n.yaml", {"nms": False}],
    "11": ["yolo11n.yaml", {}],
    "11-dynamic": ["yolo11n.yaml", {"dynamic": True}],
    "11-half": ["yolo11n.yaml", {"half": True}],
    "11-nms": ["yolo11n.yaml", {"nms": True}],
    "11-seg": ["yolo11n-seg.yaml", {}],
    "11-seg-nms": ["yolo11n-seg.yaml", {"nms": True}],
    "11-pose": ["yolo11n-pose.yaml", {}],
    "11-pose-dynamic": ["yolo11n-pose.yaml", {"dynamic": True}],
    "11-obb": ["yolo11n-obb.yaml", {}],
    "11-obb-nms": ["yolo11n-obb.yaml", {"nms": True}],
    "12": ["yolo12n.yaml", {}],
    "26": ["yolo26n.yaml", {}],
    "26-end2end": ["yolo26n.yaml", {"nms": False}],
    "26-seg-end2end": ["yolo26n-seg.yaml", {"nms": False}],
    "26-pose-end2end": ["yolo26n-pose.yaml", {"nms": False}],
    "rtdetr": ["rtdetr-l.yaml", {}],
}
SUPPRESSES_MORE = ("11-obb",)
"""Ultralytics lets suppressed rotated boxes suppress others (fast NMS), so Forebay finds its boxes and some more."""
EXTRAS = {"detect": (), "segment": ("masks",), "pose": ("keypoints",), "obb": ("rotated",)}
LEAST_COUNT = 20
GUARD_S = 600
THRESHOLDS = {"score_threshold": 0.25, "iou_threshold": 0.7, "max_results": MAX_RESULTS}


@pytest.fixture(scope="session")
def exports(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ultralytics")
    (folder / "pictures").mkdir()
    run("export_ultralytics.py", write_pictures(folder / "pictures"), folder, json.dumps(JOBS))
    return folder


def predictions(folder, name):
    """What Ultralytics predicted, with the task."""
    error = folder / f"{name}.error"
    assert not error.exists(), error.read_text()
    return np.load(folder / f"{name}.npz")


@pytest.mark.parametrize("name", JOBS)
@on_loop(guard_s=GUARD_S)
async def test_objects_are_those_that_ultralytics_finds(exports, name, record_property):
    saved = predictions(exports, name)
    extras = EXTRAS[str(saved["task"])]
    fields = {"masks": pb.MASK_FORMAT_RUN_LENGTHS} if "masks" in extras else {}
    sent = pictures()
    sizes = {picture: pixels.shape[:2] for picture, pixels in sent.items()}
    results = await answers(exports / f"{name}.onnx", sent, **THRESHOLDS, **fields)
    report = Report()
    for picture, result in results.items():
        height, width = sizes[picture]
        boxes = np.clip(saved[f"boxes {picture}"], 0, [width, height, width, height])  # upright ones of rotated are not
        theirs = Found(
            saved[f"scores {picture}"],
            saved[f"class_ids {picture}"],
            boxes,
            {extra: saved[f"{extra} {picture}"] for extra in extras},
        )
        assert (theirs.scores >= SCORE).sum() >= LEAST_COUNT, f"{picture}: the export finds too little"
        report.add(picture, theirs, found_in(result, extras), may_add=name in SUPPRESSES_MORE)
    record_property("report", str(report))
    assert "masks" not in extras or report.masks >= LEAST_COUNT * len(results)
    assert report.is_same, "\n".join([f"{len(report.faults)} faults: {report}", *report.faults[:20]])

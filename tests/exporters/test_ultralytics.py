"""Exports of Ultralytics without a configuration: Forebay's answers are Ultralytics' predictions with the same file."""

import json

import numpy as np
import pytest

from forebay.wire import frames_pb2 as pb
from tests.exporters.comparison import MAX_RESULTS, SCORE, Found, Report
from tests.exporters.environment import exports_folder, pictures, run
from tests.exporters.jobs import jobs
from tests.exporters.served import answers, found_in
from tests.support.loops import on_loop

pytestmark = pytest.mark.exporters

CLASSIFIERS = [name for name in jobs() if "-cls" in name]
DETECTORS = [name for name in jobs() if "-cls" not in name]
EXTRAS = {"detect": (), "segment": ("masks",), "pose": ("keypoints",), "obb": ("rotated",)}
LEAST_COUNT = 20
CLASS_COUNT = 5
CLASS_SCORE = 0.02
"""Relative."""
GUARD_S = 600
THRESHOLDS = {"score_threshold": 0.25, "iou_threshold": 0.7, "max_results": MAX_RESULTS}


@pytest.fixture(scope="session")
def exports(tmp_path_factory):
    folder = exports_folder(tmp_path_factory, "ultralytics")
    missing = {name: job for name, job in jobs().items() if not (folder / f"{name}.npz").exists()}
    run("export_ultralytics.py", folder / "pictures", folder, json.dumps(missing))
    return folder


def predictions(folder, name):
    """What Ultralytics predicted, with the task."""
    error = folder / f"{name}.error"
    assert not error.exists(), error.read_text()
    return np.load(folder / f"{name}.npz")


@pytest.mark.parametrize("name", DETECTORS)
@on_loop(guard_s=GUARD_S)
async def test_objects_are_those_that_ultralytics_finds(exports, name, record_property):
    saved = predictions(exports, name)
    extras = EXTRAS[str(saved["task"])]
    fields = {"masks": pb.MASK_FORMAT_RUN_LENGTHS} if "masks" in extras else {}
    sent = pictures()
    results = await answers(exports / f"{name}.onnx", sent, **THRESHOLDS, **fields)
    report = Report()
    for picture, result in results.items():
        height, width = sent[picture].shape[:2]
        boxes = np.clip(saved[f"boxes {picture}"], 0, [width, height, width, height])  # upright ones of rotated are not
        theirs = Found(
            saved[f"scores {picture}"],
            saved[f"class_ids {picture}"],
            boxes,
            {extra: saved[f"{extra} {picture}"] for extra in extras},
        )
        assert (theirs.scores >= SCORE).sum() >= LEAST_COUNT, f"{picture}: the export finds too little"
        report.add(picture, theirs, found_in(result, extras))
    record_property("report", str(report))
    assert "masks" not in extras or report.masks >= LEAST_COUNT * len(results)
    assert not report.faults, "\n".join([f"{len(report.faults)} faults: {report}", *report.faults[:20]])


@pytest.mark.parametrize("name", CLASSIFIERS)
@on_loop(guard_s=GUARD_S)
async def test_the_first_classes_are_those_that_ultralytics_finds(exports, name):
    saved = predictions(exports, name)
    results = await answers(exports / f"{name}.onnx", pictures())
    for picture, result in results.items():
        theirs = saved[f"probabilities {picture}"]
        first = np.argsort(-theirs, kind="stable")[:CLASS_COUNT]
        assert [row.class_id for row in result.classes] == first.tolist(), picture
        assert [row.score for row in result.classes] == pytest.approx(theirs[first].tolist(), rel=CLASS_SCORE), picture

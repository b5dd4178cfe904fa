"""Converts the outputs of one frame to typed detections: a head's candidates, to the frame, suppression, clipping.

Pure: runs in the worker pool, for one frame at a time; borrows the arrays only for the call.

The head applies the score threshold first, so that the steps here process tens of boxes rather than thousands, and at
most MAX_CANDIDATES of them.
"""

from collections.abc import Iterable
from itertools import repeat, starmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forebay_server.service.errors import CorruptResultError
from forebay_server.service.pictures.picture_input import PictureInput
from forebay_server.service.request import OutputArrays
from forebay_server.service.results.arrays import check_finite, labels_of, quiet
from forebay_server.service.results.detection import Box, Detection, Keypoint, Mask, RotatedBox
from forebay_server.service.results.frame_map import Floats, FrameMap, frame_map
from forebay_server.service.results.heads.candidates import Candidates
from forebay_server.service.results.heads.names import Nms
from forebay_server.service.results.masks import make_masks
from forebay_server.service.results.options import MaskFormat, ResultOptions
from forebay_server.service.results.rotated_suppression import suppress_rotated
from forebay_server.service.results.suppression import suppress
from forebay_server.service.results.task import DetectionTask

LARGEST_CLASS_ID = 2**31 - 1


def decode_detections(
    outputs: OutputArrays,
    task: DetectionTask,
    options: ResultOptions,
    frame_size: tuple[int, int],
    picture: PictureInput | None,
) -> tuple[Detection, ...]:
    """Return the detections of one frame, by falling score.

    Args:
        outputs: the model's outputs for this frame, in the model's order.
        task: the meaning of the outputs.
        options: the stream's thresholds and form of masks.
        frame_size: width and height in pixels of the frame as the client sent it.
        picture: the model's picture, into which the frame was brought; None for a model that takes no pictures.

    Raises:
        CorruptResultError: shapes that do not fit together, numbers that are not finite, a class out of range.
    """
    score_threshold, iou_threshold, max_results = options.for_detections(task)
    found = task.head.candidates(outputs, score_threshold)
    if not found.scores.size:
        return ()
    check_finite(found.boxes, "boxes")
    class_ids = _class_ids(found)
    where = frame_map(picture, frame_size, is_unit=found.is_unit)
    nms: Nms = task.nms or task.head.default_nms
    if found.angles is not None:
        return _rotated(task, found, class_ids, where, nms, iou_threshold, max_results)
    boxes = where.fractions(found.boxes, is_unit=found.is_unit)
    clipped = np.clip(boxes, 0.0, 1.0)
    is_visible = _is_visible(clipped)
    if nms == "none":
        kept = np.flatnonzero(is_visible)[:max_results]
    else:
        # boxes beside the frame, in the padding, suppress those at its edge too, as in the programs models come from
        classes = class_ids if nms == "class" else np.zeros(len(class_ids), np.int32)
        kept = np.flatnonzero(_is_visible(boxes))
        most = max_results + len(kept) - int(np.count_nonzero(is_visible[kept]))
        kept = kept[suppress(boxes.take(kept, axis=0), classes[kept], iou_threshold, most)]
        kept = kept[is_visible[kept]][:max_results]
    if found.keypoints is not None:
        extras: Iterable[Any] | None = zip(_keypoints(found.keypoints[kept], where), strict=True)
    elif options.masks != "none" and found.prototypes is not None:
        extras = zip(repeat(()), repeat(None), _masks(found, kept, clipped, where, options.masks), strict=False)
    else:
        extras = None
    return _detections(task, found, class_ids, kept, clipped.take(kept, axis=0), where, extras)


def _is_visible(boxes: Floats) -> NDArray[np.bool_]:
    """Return whether anything is left of each box, clipped or not."""
    is_wide: NDArray[np.bool_] = boxes[:, 2] > boxes[:, 0]
    is_wide &= boxes[:, 3] > boxes[:, 1]
    return is_wide


def _class_ids(found: Candidates) -> NDArray[np.int32]:
    class_ids: NDArray[Any] | None = found.class_ids
    if class_ids is None:
        return np.zeros(len(found.scores), np.int32)
    if class_ids.dtype.kind == "f":
        check_finite(class_ids, "class ids")
        class_ids = np.rint(class_ids.astype(np.float64))
    if not 0 <= class_ids.min() <= class_ids.max() <= LARGEST_CLASS_ID:
        raise CorruptResultError("class ids hold negative numbers, or larger ones than there are classes")
    return class_ids.astype(np.int32, copy=False)


def _detections(
    task: DetectionTask,
    found: Candidates,
    class_ids: NDArray[np.int32],
    kept: NDArray[Any],
    boxes: Floats,
    where: FrameMap,
    extras: Iterable[Any] | None,
) -> tuple[Detection, ...]:
    """Return one detection for each kept candidate; `extras` hold the fields after the box, if there are any."""
    pixels = boxes * np.array((where.width, where.height, where.width, where.height), np.float32)
    numbers = class_ids[kept].tolist()
    rows = (
        labels_of(task.labels, numbers),
        numbers,
        found.scores[kept].tolist(),
        map(Box._make, boxes.tolist()),
        map(Box._make, pixels.tolist()),
    )
    if extras is None:
        return tuple(map(Detection, *rows))
    return tuple([Detection(*row, *extra) for row, extra in zip(zip(*rows, strict=True), extras, strict=True)])


def _keypoints(keypoints: Floats, where: FrameMap) -> list[tuple[Keypoint, ...]]:
    check_finite(keypoints, "keypoints")
    mapped = np.concatenate([where.points(keypoints[:, :, :2]), keypoints[:, :, 2:]], axis=2)
    return [tuple(starmap(Keypoint, points)) for points in mapped.tolist()]


def _masks(
    found: Candidates, kept: NDArray[Any], clipped: Floats, where: FrameMap, form: MaskFormat
) -> list[Mask | None]:
    assert found.coefficients is not None and found.prototypes is not None  # noqa: S101, PT018 - for mypy
    return make_masks(found.coefficients[kept], found.prototypes, clipped[kept], where, form)


@quiet
def _rotated(
    task: DetectionTask,
    found: Candidates,
    class_ids: NDArray[np.int32],
    where: FrameMap,
    nms: Nms,
    iou_threshold: float,
    max_results: int,
) -> tuple[Detection, ...]:
    angles = found.angles
    assert angles is not None  # noqa: S101 - for mypy: the caller has looked
    check_finite(angles, "angles")
    rotated = where.rotated(found.boxes, angles)
    fractions = _upright(rotated) / np.array([where.width, where.height] * 2)
    clipped = np.clip(fractions, 0.0, 1.0)
    is_visible = _is_visible(clipped)
    kept = np.flatnonzero((rotated[:, 2] > 0) & (rotated[:, 3] > 0))
    if nms != "none":
        classes = class_ids if nms == "class" else np.zeros(len(class_ids), np.int32)
        most = max_results + len(kept) - int(np.count_nonzero(is_visible[kept]))
        kept = kept[suppress_rotated(found.boxes[kept], angles[kept], classes[kept], iou_threshold, most)]
    kept = kept[is_visible[kept]][:max_results]
    extras = zip(repeat(()), starmap(RotatedBox, rotated[kept].tolist()), strict=False)
    return _detections(task, found, class_ids, kept, clipped[kept], where, extras)


def _upright(rotated: Floats) -> Floats:
    """Return the upright rectangles [n, 4] around rotated boxes [n, 5]."""
    cos, sin = np.abs(np.cos(rotated[:, 4:])), np.abs(np.sin(rotated[:, 4:]))
    half = (
        np.hstack(
            [
                rotated[:, 2:3] * cos + rotated[:, 3:4] * sin,
                rotated[:, 2:3] * sin + rotated[:, 3:4] * cos,
            ]
        )
        / 2
    )
    return np.hstack([rotated[:, :2] - half, rotated[:, :2] + half])

"""A result of `forebay stream` as one line of JSON.

Each line is put together from templates. `json.dumps` of nested dictionaries took five times the CPU time, more than
any other step of a client that passes packets through: most of it went into two conversions of each number, one to
round it and one to write it. Pure.
"""

import json
from json.encoder import encode_basestring_ascii as _quoted
from operator import attrgetter
from typing import Any

import numpy as np

from forebay import Detection, Result
from forebay.client.detection import Keypoint, Mask, RotatedBox, RunLengths
from forebay.client.result import Timings

_DECIMALS = "%.5f"  # enough for a score, and for a pixel
_CORNERS = ("x_min", "y_min", "x_max", "y_max")


def _template(names: tuple[str, ...], form: str = _DECIMALS) -> str:
    return ", ".join(f'"{name}": {form}' for name in names)


_NUMBERS = (
    f', "class_id": %d, "score": {_DECIMALS}, "box": {{{_template(_CORNERS)}}}, "box_pixels": {{{_template(_CORNERS)}}}'
)
_numbers = attrgetter(
    "class_id", "score", *(f"box.{name}" for name in _CORNERS), *(f"box_pixels.{name}" for name in _CORNERS)
)
_TIMINGS, _timings = _template(Timings.__slots__, "%d"), attrgetter(*Timings.__slots__)
_KEYPOINT, _keypoint = f"{{{_template(Keypoint.__slots__)}}}", attrgetter(*Keypoint.__slots__)
_ROTATED, _rotated = _template(RotatedBox.__slots__), attrgetter(*RotatedBox.__slots__)
_runs = attrgetter(*RunLengths.__slots__)


def json_line(camera: str, index: int, file: str, result: Result) -> str:
    """Return a result as an object without a line break; raw tensors are left out.

    Args:
        camera: its name.
        index: of the frame, from 0.
        file: name of the frame's file; empty if it has none of its own.
        result: of the frame.
    """
    text = f'{{"camera": {_quoted(camera)}, "frame": {index}'
    if file:
        text += f', "file": {_quoted(file)}'
    text += f', "seq": {result.seq}, "status": "{result.status.value}"'
    if result.message:
        text += f', "message": {_quoted(result.message)}'
    if result.is_answered:
        age = "null" if result.age_ms is None else f"{result.age_ms:.3f}"
        text += f', "age_ms": {age}, "late_by_ms": {result.late_by_ms:.3f}'
        text += (
            f', "model_version": {_quoted(result.model_version)}, "timings": {{{_TIMINGS % _timings(result.timings)}}}'
        )
    if result.is_ok:
        text += f', "detections": [{", ".join(map(_detection, result.detections))}]'
        classes = (
            f'{{"label": {_quoted(found.label)}, "class_id": {found.class_id}, "score": {found.score:.5f}}}'
            for found in result.classes
        )
        text += f', "classes": [{", ".join(classes)}]'
    return text + "}"


def _detection(found: Detection) -> str:
    """Return a detection without the fields that its model or its stream does not have."""
    text = f'{{"label": {_quoted(found.label)}{_NUMBERS % _numbers(found)}'
    if found.keypoints:
        text += f', "keypoints": [{", ".join([_KEYPOINT % _keypoint(point) for point in found.keypoints])}]'
    if found.rotated_box is not None:
        text += f', "rotated_box": {{{_ROTATED % _rotated(found.rotated_box)}}}'
    if found.track_id:
        text += f', "track_id": {found.track_id}'
    if found.mask is not None:
        text += f', "mask": {json.dumps(_mask(found.mask))}'
    return text + "}"


def _mask(mask: Mask) -> dict[str, Any]:
    if mask.run_lengths is not None:
        return {"run_lengths": dict(zip(RunLengths.__slots__, _runs(mask.run_lengths), strict=True))}
    return {"polygons": [np.round(points, 2).ravel().tolist() for points in mask.polygons]}

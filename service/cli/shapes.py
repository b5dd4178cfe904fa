"""The shape of one detection on a picture: mask, box or rotated box, keypoints. OpenCV, imported on first use."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from forebay import Detection, Mask

Picture = NDArray[np.uint8]  # (height, width, 3), blue first
Colour = tuple[int, int, int]
Plate = tuple[int, int, int, int]  # left, top, right, bottom

TINT = 0.45  # of a mask's colour
LEAST_SURE = 0.5  # score of a keypoint that is drawn, as in COCO's tools
# Of the 17 keypoints of COCO, in its order: nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles.
COCO_KEYPOINTS = 17
HEAD, TRUNK = (3, 1, 0, 2, 4), (5, 6, 12, 11, 5)
ARMS_AND_LEGS = ((5, 7, 9), (6, 8, 10), (11, 13, 15), (12, 14, 16))
BONES = tuple(bone for line in (HEAD, TRUNK, *ARMS_AND_LEGS) for bone in pairwise(line))
POINT: Colour = (255, 255, 255)


def draw_shape(canvas: Picture, detection: Detection, colour: Colour, scale: float) -> None:
    """Draw everything but the label. `scale` is 1 for a picture of 1,000 pixels."""
    import cv2

    if detection.mask is not None:
        _tint(canvas, detection.mask, colour)
    thickness = max(1, round(3 * scale))
    if detection.rotated_box is not None:
        corners = np.rint(detection.rotated_box.corners).astype(np.int32)
        cv2.polylines(canvas, [corners], isClosed=True, color=colour, thickness=thickness, lineType=cv2.LINE_AA)
    else:
        left, top, right, bottom = corners_of(canvas, detection)
        cv2.rectangle(canvas, (left, top), (right, bottom), colour, thickness, cv2.LINE_AA)
    if detection.keypoints:
        _draw_keypoints(canvas, detection, colour, scale)


def corners_of(canvas: Picture, detection: Detection) -> Plate:
    """Return the box in pixels of the canvas."""
    height, width = canvas.shape[:2]
    box = detection.box
    left, top = round(box.x_min * (width - 1)), round(box.y_min * (height - 1))
    return left, top, round(box.x_max * (width - 1)), round(box.y_max * (height - 1))


def _tint(canvas: Picture, mask: Mask, colour: Colour) -> None:
    import cv2

    inside = np.zeros(canvas.shape[:2], np.uint8)
    runs = mask.run_lengths
    if runs is not None and (runs.height, runs.width) == canvas.shape[:2]:
        inside = runs.to_array().astype(np.uint8)
    for points in mask.polygons:
        cv2.fillPoly(inside, [np.rint(points).astype(np.int32)], 1)
    where = inside.astype(bool)
    canvas[where] = np.rint(canvas[where] * (1 - TINT) + np.array(colour) * TINT).astype(np.uint8)


def _draw_keypoints(canvas: Picture, detection: Detection, colour: Colour, scale: float) -> None:
    import cv2

    points = [(round(point.x), round(point.y), point.score >= LEAST_SURE) for point in detection.keypoints]
    if len(points) == COCO_KEYPOINTS:
        for one, other in BONES:
            if points[one][2] and points[other][2]:
                cv2.line(canvas, points[one][:2], points[other][:2], colour, max(1, round(4 * scale)), cv2.LINE_AA)
    for x, y, is_sure in points:
        if is_sure:
            cv2.circle(canvas, (x, y), max(2, round(4 * scale)), POINT, cv2.FILLED, cv2.LINE_AA)
            cv2.circle(canvas, (x, y), max(2, round(4 * scale)), colour, max(1, round(2 * scale)), cv2.LINE_AA)

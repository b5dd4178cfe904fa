"""Whether two sets of detections are the same, by the limits of these tests. Pure."""

from dataclasses import dataclass, field

import cv2
import numpy as np

LEAST_IOU = 0.98
LEAST_MASK_IOU = 0.95
"""Or only pixels within two of an outline differ. Ultralytics interpolates twice where padding is no whole pixel of the
prototypes: against its own result with one interpolation, masks of 500 pixels and more had IoUs of 0.93 to 1."""
MOST_SCORE = 1e-3
MOST_KEYPOINT_PIXELS = 1.0
MOST_DEGREES = 1.0
SCORE = 0.3
MAX_RESULTS = 300
"""Of one picture: those that a full list leaves out are unknown."""
SQUARE = 1e-2
"""Sides of a rectangle that differ by less than this share may be exchanged by a rounding."""
LEAST_AREA = 4.0
"""Pixels: a box outside the frame is clipped to a line, which has no IoU."""
SQUARE_OF_5 = np.ones((5, 5), np.uint8)
CLOSE_TO_SCORE = 2e-3
"""A score this close to the threshold may fall on either side: two resized pictures differ by a rounding."""


@dataclass
class Found:
    """Detections of one picture, as arrays of one row each; fields that the task has not are empty."""

    scores: np.ndarray
    class_ids: np.ndarray
    boxes: np.ndarray
    extras: dict = field(default_factory=dict)


@dataclass
class Report:
    """Of one export: the detections above a threshold, and the worst of each number.

    `masks` counts those that were compared, `outlines` those of a lower IoU than LEAST_MASK_IOU that differ at their
    outline alone. `faults` says what differs.
    """

    score_threshold: float = SCORE
    count: int = 0
    box_iou: float = 1.0
    masks: int = 0
    outlines: int = 0
    mask_iou: float = 1.0
    keypoint_pixels: float = 0.0
    degrees: float = 0.0
    score: float = 0.0
    faults: list = field(default_factory=list)

    def add(self, name, theirs, ours):
        """Compare the detections of one picture, both ways."""
        full = [found.scores.min() for found in (theirs, ours) if len(found.scores) == MAX_RESULTS]
        least = max([self.score_threshold, *map(float, full)])
        for one, other, direction in ((theirs, ours, "missing"), (ours, theirs, "added")):
            is_sure = (one.scores >= least + CLOSE_TO_SCORE) & (_areas(one.boxes) >= LEAST_AREA)
            self.count += int(is_sure.sum()) if direction == "missing" else 0
            for index in np.flatnonzero(is_sure):
                if direction == "added" and "masks" in one.extras and one.extras["masks"][index] is None:
                    continue  # Ultralytics leaves out objects whose mask is empty
                match = _match(one, index, other)
                if match is None:
                    self.faults.append(
                        f"{name}: {direction} {_shown(one, index)}, nearest {_nearest(one, index, other)}"
                    )
                elif direction == "missing":
                    self._pair(name, theirs, index, ours, match)

    def _pair(self, name, theirs, index, ours, match):
        iou = float(ious(theirs.boxes[index], ours.boxes[match : match + 1])[0])
        self.box_iou = min(self.box_iou, iou)
        score = abs(float(theirs.scores[index] - ours.scores[match]))
        self.score = max(self.score, score)
        self._limit(name, score > MOST_SCORE, f"score differs by {score:.4f}")
        if "keypoints" in theirs.extras:
            away = np.hypot(*(theirs.extras["keypoints"][index][:, :2] - ours.extras["keypoints"][match][:, :2]).T)
            self.keypoint_pixels = max(self.keypoint_pixels, float(away.max()))
            self._limit(name, away.max() > MOST_KEYPOINT_PIXELS, f"keypoint {away.max():.2f} pixels away")
        if "rotated" in theirs.extras:
            degrees = _degrees(theirs.extras["rotated"][index], ours.extras["rotated"][match])
            self.degrees = max(self.degrees, degrees)
            self._limit(name, degrees > MOST_DEGREES, f"angle differs by {degrees:.1f} degrees")
        if "masks" in theirs.extras and ours.extras["masks"][match] is not None:
            iou, is_close = _compared(theirs.extras["masks"][index], ours.extras["masks"][match])
            self.masks += 1
            self.outlines += is_close and iou < LEAST_MASK_IOU
            self.mask_iou = min(self.mask_iou, iou)
            self._limit(name, not is_close and iou < LEAST_MASK_IOU, f"mask has an IoU of {iou:.3f}")

    def _limit(self, name, is_beyond, text):
        if is_beyond:
            self.faults.append(f"{name}: {text}")


def ious(box, boxes):
    """IoU of one box with others, x1 y1 x2 y2."""
    least, most = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    shared = np.clip(most - least, 0, None).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return shared / np.maximum((box[2:] - box[:2]).prod() + areas - shared, 1e-9)


def _match(one, index, other):
    """The detection of `other` with the same class and box, and the closest score."""
    same = np.flatnonzero(other.class_ids == one.class_ids[index])
    if len(same) == 0:
        return None
    same = same[ious(one.boxes[index], other.boxes[same]) >= LEAST_IOU]
    if len(same) == 0:
        return None
    return int(same[np.abs(other.scores[same] - one.scores[index]).argmin()])  # boxes clipped to the frame may coincide


def _compared(one, other):
    """IoU of two masks, and whether all pixels that differ are within two pixels of an outline."""
    iou = np.logical_and(one, other).sum() / max(np.logical_or(one, other).sum(), 1)
    near = [cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_GRADIENT, SQUARE_OF_5) > 0 for mask in (one, other)]
    return float(iou), not np.any((one ^ other) & ~(near[0] | near[1]))


def _areas(boxes):
    return np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(1)


def _nearest(one, index, other):
    if len(other.scores) == 0:
        return "none"
    return _shown(other, int(ious(one.boxes[index], other.boxes).argmax()))


def _shown(found, index):
    box = np.round(found.boxes[index].astype(float), 1).tolist()
    return f"class {int(found.class_ids[index])} score {found.scores[index]:.3f} box {box}"


def _degrees(one, other):
    """The angle between two rectangles cx cy w h angle: the same rectangle may be written with w and h exchanged."""

    def turned(row):
        _, _, width, height, angle = row
        return angle if width >= height else angle + np.pi / 2

    is_square = abs(one[2] - one[3]) <= SQUARE * max(one[2:4])
    period = 90 if is_square else 180
    difference = np.rad2deg(turned(one) - turned(other)) % period
    return float(min(difference, period - difference))

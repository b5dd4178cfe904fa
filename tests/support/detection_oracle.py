"""The way from objects in the model's picture to detections, with plain loops and formulas of its own."""

import math

import numpy as np

from tests.support.head_families import HEIGHT, WIDTH


def placement(resize, frame_width, frame_height):
    """Scales and offsets: model pixel = frame pixel * scale + offset."""
    if resize == "stretch":
        return WIDTH / frame_width, HEIGHT / frame_height, 0, 0
    ratio = min(HEIGHT / frame_height, WIDTH / frame_width)
    new_width, new_height = max(1, round(frame_width * ratio)), max(1, round(frame_height * ratio))
    left, top = round((WIDTH - new_width) / 2 - 0.1), round((HEIGHT - new_height) / 2 - 0.1)
    return new_width / frame_width, new_height / frame_height, left, top


def to_frame(point, place):
    scale_x, scale_y, left, top = place
    return (point[0] - left) / scale_x, (point[1] - top) / scale_y


def clip(value, most):
    return min(max(value, 0.0), most)


def iou(a, b):
    common = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def covariance(w, h, angle):
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return turn @ np.diag([w * w / 12, h * h / 12]) @ turn.T


def probabilistic_iou(a, b):
    """1 - Hellinger distance of two Gaussians; a and b are items with an angle."""
    one, two = (covariance(item.box[2], item.box[3], item.angle) for item in (a, b))
    mean = (one + two) / 2
    apart = np.array(a.box[:2]) - np.array(b.box[:2])
    distance = apart @ np.linalg.inv(mean) @ apart / 8
    distance += math.log(np.linalg.det(mean) / math.sqrt(np.linalg.det(one) * np.linalg.det(two))) / 2
    return 1 - math.sqrt(max(0.0, 1 - math.exp(-distance)))


def turned_corners(cx, cy, w, h, angle):
    return [
        (cx + dx * math.cos(angle) - dy * math.sin(angle), cy + dx * math.sin(angle) + dy * math.cos(angle))
        for dx, dy in ((-w / 2, -h / 2), (w / 2, -h / 2), (w / 2, h / 2), (-w / 2, h / 2))
    ]


def frame_box(item, place, frame_width, frame_height):
    """Corners in pixels of the frame, clipped."""
    if item.angle is None:
        points = [to_frame(item.box[:2], place), to_frame(item.box[2:], place)]
    else:
        sides = (side / scale for side, scale in zip(item.box[2:], place[:2], strict=True))
        points = turned_corners(*to_frame(item.box[:2], place), *sides, item.angle)
        points = [tuple(map(min, zip(*points, strict=True))), tuple(map(max, zip(*points, strict=True)))]
    (left, top), (right, bottom) = points
    return clip(left, frame_width), clip(top, frame_height), clip(right, frame_width), clip(bottom, frame_height)


def is_box(item):
    x, y, right_or_width, bottom_or_height = item.box
    return (right_or_width > x and bottom_or_height > y) if item.angle is None else min(item.box[2:]) > 0


def is_visible(item, place, frame):
    left, top, right, bottom = frame_box(item, place, *frame)
    return right > left and bottom > top


def expected(items, place, frame, *, least_score, iou_threshold, max_results, nms):
    """The items to report, by falling score; iou_threshold may not be equal to any IoU."""
    chosen = [item for item in items if item.score >= least_score and is_box(item)]
    chosen.sort(key=lambda item: -item.score)
    if nms == "none":
        return [item for item in chosen if is_visible(item, place, frame)][:max_results]
    kept = []
    for item in chosen:
        rivals = [other for other in kept if nms == "agnostic" or other.class_id == item.class_id]
        overlap = (lambda a, b: iou(a.box, b.box)) if item.angle is None else probabilistic_iou
        if all(overlap(item, other) <= iou_threshold for other in rivals):
            kept.append(item)
    return [item for item in kept if is_visible(item, place, frame)][:max_results]

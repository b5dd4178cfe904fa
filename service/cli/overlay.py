"""Boxes, labels and a caption drawn onto pictures, and pictures tiled into one. OpenCV, imported on first use."""

import math
from collections.abc import Sequence

import numpy as np

from forebay import Detection
from forebay_server.service.cli.shapes import Colour, Picture, Plate, corners_of, draw_shape

# Distinct on asphalt, grass and sky, blue first; a class keeps its colour, and class 0 has its own.
FIRST: Colour = (0, 140, 255)
PALETTE: tuple[Colour, ...] = (
    (235, 180, 40),
    (90, 200, 60),
    (220, 90, 200),
    (60, 90, 230),
    (200, 200, 60),
    (130, 80, 240),
    (60, 220, 220),
)
INK: Colour = (20, 20, 20)
PAPER: Colour = (245, 245, 245)
GAP_PIXELS = 6
CAPTION_LINES = 2.1  # of text height


def annotate(picture: Picture, detections: Sequence[Detection], caption: str, note: str = "") -> Picture:
    """Return a copy of `picture` with its detections and, above it, a caption (left) and a note (right).

    Args:
        picture: shape (height, width, 3), dtype uint8, blue first; not changed.
        detections: boxes in 0..1 of the picture; the best first: drawn on top.
        caption: for example the camera's name.
        note: for example a summary of the detections.
    """
    height, width = picture.shape[:2]
    canvas = np.ascontiguousarray(picture).copy()
    scale = max(0.4, min(width, height) / 1000)
    for detection in reversed(detections):
        draw_shape(canvas, detection, colour_of(detection), scale)
    taken: list[Plate] = []
    for detection in detections:
        _draw_label(canvas, detection, scale, taken)
    band_height = round(11 * scale * CAPTION_LINES) * 2 + height % 2  # in all even: MPEG-4 cuts odd heights
    band = np.full((band_height, width, 3), INK, np.uint8)
    baseline = round(band.shape[0] * 0.68)
    _text(band, caption, (round(8 * scale) + 4, baseline), scale * 1.15, PAPER)
    _text(band, note, (width - _text_size(note, scale)[0] - 8, baseline), scale, (190, 190, 190))
    return np.concatenate([band, canvas])


def tile(pictures: Sequence[Picture]) -> Picture:
    """Return pictures of one size side by side, as close to square as their number allows."""
    if len(pictures) == 1:
        return pictures[0]
    columns = math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    height, width = pictures[0].shape[:2]
    shape = (rows * (height + GAP_PIXELS) - GAP_PIXELS, columns * (width + GAP_PIXELS) - GAP_PIXELS, 3)
    canvas = np.full(shape, PAPER, np.uint8)
    for index, picture in enumerate(pictures):
        top, left = index // columns * (height + GAP_PIXELS), index % columns * (width + GAP_PIXELS)
        canvas[top : top + height, left : left + width] = picture[:height, :width]
    return canvas


def colour_of(detection: Detection) -> Colour:
    """Return the colour of the object if it is tracked, else of its class."""
    if detection.track_id:
        return (FIRST, *PALETTE)[detection.track_id % (len(PALETTE) + 1)]
    return FIRST if detection.class_id == 0 else PALETTE[detection.class_id % len(PALETTE)]


def summary_of(detections: Sequence[Detection]) -> str:
    """Count the detections by label: `6 person, 2 car`."""
    counts: dict[str, int] = {}
    for detection in detections:
        counts[detection.label] = counts.get(detection.label, 0) + 1
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {label.replace('_', ' ')}" for label, count in ordered) or "nothing found"


def _draw_label(canvas: Picture, detection: Detection, scale: float, taken: list[Plate]) -> None:
    """Write name and score on a plate above the box, or elsewhere beside another plate.

    Without room, only the score.
    """
    import cv2

    left, top, _, bottom = corners_of(canvas, detection)
    pad = max(2, round(4 * scale))
    number = f"#{detection.track_id} " if detection.track_id else ""
    for text in (
        f"{number}{detection.label.replace('_', ' ')} {detection.score:.2f}",
        f"{number}{detection.score:.2f}",
    ):
        width, height = (size + 2 * pad for size in _text_size(text, scale * 0.9))
        x = max(0, min(left, canvas.shape[1] - width))
        for y in (top - height, bottom, top):
            plate = (x, y, x + width, y + height)
            is_inside = y >= 0 and plate[3] <= canvas.shape[0]
            if is_inside and not any(_overlap(plate, other) for other in taken):
                taken.append(plate)
                cv2.rectangle(canvas, plate[:2], plate[2:], colour_of(detection), cv2.FILLED)
                _text(canvas, text, (x + pad, y + height - pad), scale * 0.9, INK)
                return


def _overlap(one: Plate, other: Plate) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _text(canvas: Picture, text: str, origin: tuple[int, int], scale: float, colour: Colour) -> None:
    import cv2

    cv2.putText(canvas, _plain(text), origin, cv2.FONT_HERSHEY_SIMPLEX, scale * 0.8, colour, 1, cv2.LINE_AA)


def _text_size(text: str, scale: float) -> tuple[int, int]:
    import cv2

    (width, height), _ = cv2.getTextSize(_plain(text), cv2.FONT_HERSHEY_SIMPLEX, scale * 0.8, 1)
    return int(width), int(height)


def _plain(text: str) -> str:
    """Replace characters outside ASCII, which OpenCV's fonts would draw as `??`."""
    return text.encode("ascii", "replace").decode()

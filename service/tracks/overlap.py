"""Compares the boxes of tracks and detections: intersection over union, with a margin for uncertainty."""

import numpy as np

from forebay_server.service.tracks.motion import Floats, Motion

REACH = 1.0
"""Standard deviations of the predicted centre by which boxes grow before they are compared."""


def similarity(motion: Motion, measured: Floats) -> Floats:
    """Return the intersection over union of every track with every detection, shape (tracks, detections), 0 to 1.

    Both boxes of a pair grow on each side by the uncertainty of the track. A track that was seen just before is
    compared exactly, and one that was not seen for long is found some way off its predicted place, where the exact
    boxes would not touch.

    Args:
        motion: predicted to the time of the detections.
        measured: centre x, centre y, width, height; shape (detections, 4).
    """
    margin = np.multiply(np.sqrt(motion.variance[:, 0, :1]), 2 * REACH, dtype=np.float32)
    across, widths, other_widths = _common(motion.position[:, (0, 2)], measured[:, (0, 2)], margin)
    down, heights, other_heights = _common(motion.position[:, (1, 3)], measured[:, (1, 3)], margin)
    shared = across * down
    result: Floats = shared / (widths * heights + other_widths * other_heights - shared)
    return result


def _common(own: Floats, other: Floats, margin: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the length that two intervals share, and the lengths of both, all with the margin.

    Args:
        own: centre and length, shape (tracks, 2).
        other: shape (detections, 2).
        margin: added to both lengths, shape (tracks, 1).
    """
    lengths, other_lengths = own[:, 1:] + margin, other[:, 1] + margin
    distance = np.abs(own[:, :1] - other[:, 0])
    shared = np.minimum((lengths + other_lengths) * np.float32(0.5) - distance, np.minimum(lengths, other_lengths))
    return np.maximum(shared, 0), lengths, other_lengths

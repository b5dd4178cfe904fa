"""Higher order tracking accuracy (HOTA), as Luiten et al. define it and TrackEval computes it.

A tracker is right about an object when its box overlaps (detection) and when its id stays with it (association). Both
are measured for each threshold of overlap from 0.05 to 0.95, and HOTA is the mean of their geometric means.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forebay_server.service.tracks.assignment import best_pairs

THRESHOLDS = np.arange(0.05, 0.99, 0.05)
TOLERANCE = np.finfo(np.float64).eps


@dataclass(frozen=True, slots=True)
class Frame:
    """The truth and a tracker's answer for one frame.

    Attributes:
        true_ids: shape (objects,), from 0, each at most once.
        given_ids: shape (answers,), likewise.
        overlap: intersection over union of every object and answer, shape (objects, answers).
    """

    true_ids: NDArray[np.int64]
    given_ids: NDArray[np.int64]
    overlap: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Score:
    """Accuracies from 0 to 1, each the mean over all thresholds."""

    hota: float
    detection: float
    association: float


def overlap_of(boxes: NDArray[np.floating], others: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the intersection over union of boxes x1, y1, x2, y2: shapes (n, 4) and (m, 4) to (n, m)."""
    first, second = boxes[:, None].astype(np.float64), others[None].astype(np.float64)
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    shared = np.prod(np.maximum(sides, 0), axis=-1)
    areas = [np.prod(each[..., 2:] - each[..., :2], axis=-1) for each in (first, second)]
    return np.asarray(shared / (areas[0] + areas[1] - shared))


def hota(frames: Sequence[Frame]) -> Score:
    """Score one sequence."""
    objects = 1 + max((int(frame.true_ids.max()) for frame in frames if len(frame.true_ids)), default=-1)
    answers = 1 + max((int(frame.given_ids.max()) for frame in frames if len(frame.given_ids)), default=-1)
    alike, object_count, answer_count = _alikeness(frames, objects, answers)
    matched = np.zeros((len(THRESHOLDS), objects, answers))
    for frame in frames:
        cells = np.ix_(frame.true_ids, frame.given_ids)
        pairs = best_pairs(alike[cells] * frame.overlap, 0.0)
        overlaps = frame.overlap[pairs]
        hits = overlaps >= THRESHOLDS[:, None] - TOLERANCE
        matched[:, frame.true_ids[pairs.rows], frame.given_ids[pairs.columns]] += hits
    true_positives = matched.sum((1, 2))
    all_boxes = object_count.sum() + answer_count.sum()
    detection = true_positives / np.maximum(1, all_boxes - true_positives)
    # of the frames that show the object or carry the id, the share in which they belong together
    together = matched / np.maximum(1, object_count[:, None] + answer_count[None] - matched)
    association = (matched * together).sum((1, 2)) / np.maximum(1, true_positives)
    return Score(float(np.sqrt(detection * association).mean()), float(detection.mean()), float(association.mean()))


def _alikeness(
    frames: Sequence[Frame], objects: int, answers: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return how much each object and each id overlap over the whole sequence, and how often each occurs."""
    together = np.zeros((objects, answers))
    object_count, answer_count = np.zeros(objects), np.zeros(answers)
    for frame in frames:
        overlap = frame.overlap
        either = overlap.sum(0)[None] + overlap.sum(1)[:, None] - overlap
        together[np.ix_(frame.true_ids, frame.given_ids)] += overlap / np.where(either > TOLERANCE, either, np.inf)
        object_count[frame.true_ids] += 1
        answer_count[frame.given_ids] += 1
    return (
        together / np.maximum(object_count[:, None] + answer_count[None] - together, 1e-300),
        object_count,
        answer_count,
    )

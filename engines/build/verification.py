"""Compares a model with the original: errors of its outputs, and agreement of its results. Pure.

Errors are judged relative to the reference's largest value per output. For detectors and classifiers errors are not
decisive: boxes close to the threshold come and go, so agreement is judged with a margin around it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

MARGIN = 0.05
LEAST_OVERLAP = 0.5  # intersection over union from which on two boxes are the same object
"""A reference box counts from threshold + MARGIN; the other model may find it from threshold - MARGIN."""


@dataclass(slots=True)
class OutputDifference:
    """Error of one output relative to the reference's, over all frames.

    Attributes:
        name: of the output.
        max_error: largest absolute difference.
        mean_error: mean absolute difference.
        scale: largest absolute value of the reference.
    """

    name: str
    max_error: float = 0.0
    mean_error: float = 0.0
    scale: float = 0.0
    frames: int = 0

    @property
    def relative(self) -> float:
        """max_error as a share of scale."""
        return self.max_error / self.scale if self.scale else self.max_error

    def add(self, reference: NDArray[Any], other: NDArray[Any]) -> None:
        """Add one frame's output; values that are not finite on one side only count as infinitely far."""
        wide, other_wide = reference.astype(np.float64), other.astype(np.float64)
        same = (wide == other_wide) | (np.isnan(wide) & np.isnan(other_wide))
        with np.errstate(invalid="ignore"):
            difference = np.where(same, 0.0, np.abs(wide - other_wide))
        difference = np.where(np.isnan(difference), np.inf, difference)
        self.max_error = max(self.max_error, float(difference.max(initial=0.0)))
        self.mean_error = (self.mean_error * self.frames + float(difference.mean())) / (self.frames + 1)
        finite = np.abs(wide[np.isfinite(wide)])
        self.scale = max(self.scale, float(finite.max(initial=0.0)))
        self.frames += 1


class Found(NamedTuple):
    """One detected object: class, score, and corners (x_min, y_min, x_max, y_max) in any unit."""

    class_id: int
    score: float
    box: tuple[float, float, float, float]


def overlap(first: Sequence[float], second: Sequence[float]) -> float:
    """Return intersection over union of two boxes."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    common = max(0.0, width) * max(0.0, height)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second))
    return common / (areas - common) if areas > common else 0.0


@dataclass(slots=True)
class Agreement:
    """The share of the reference's results that the other model gives too.

    Attributes:
        expected: results of the reference that count.
        matched: of those, the ones that the other model gives.
        extra: results of the other model, well above the threshold, that the reference does not give.
        other_class: of the missing ones, those at whose place the other model finds another class.
        moved: of the missing ones, those whose class the other model finds elsewhere in the frame.
    """

    expected: int = 0
    matched: int = 0
    extra: int = 0
    other_class: int = 0
    moved: int = 0

    @property
    def share(self) -> float:
        """Matched of expected, 1 if nothing was expected."""
        return self.matched / self.expected if self.expected else 1.0

    def add_detections(self, reference: Sequence[Found], other: Sequence[Found], threshold: float) -> None:
        """Add one frame. Both lists hold everything from threshold - MARGIN on."""
        wanted = [each for each in reference if each.score >= threshold + MARGIN]
        self.expected += len(wanted)
        self.matched += len(_match(wanted, other))
        rest = _unmatched(wanted, other)
        self.other_class += sum(any(overlap(a.box, b.box) >= LEAST_OVERLAP for b in other) for a in rest)
        self.moved += sum(
            any(b.class_id == a.class_id for b in other)
            and not any(overlap(a.box, b.box) >= LEAST_OVERLAP for b in other)
            for a in rest
        )
        sure = [each for each in other if each.score >= threshold + MARGIN]
        self.extra += len(sure) - len(_match(sure, reference))

    def add_classes(self, reference: NDArray[Any], other: NDArray[Any]) -> None:
        """Add one frame's class scores: the best class should be the same."""
        self.expected += 1
        is_same = int(np.argmax(reference)) == int(np.argmax(other))
        self.matched += is_same
        self.extra += not is_same


PRECISION = (
    "lower precision: give the reference a configuration with a task, so that results are judged and not numbers alone"
)
EXTRA = (
    "the model finds more than the reference: its scores have moved; raise score_threshold, or keep the last layers in "
    "FP32"
)
OTHER_CLASSES = (
    "objects lie where the reference finds them, in other classes: the channels were swapped in the calibration "
    "(color_order), or the two models have their classes in another order"
)
MOVED = (
    "objects have the classes of the reference at other places: frames were resized or padded otherwise in the "
    "calibration (resize, pad_at), or the outputs of boxes lost precision: keep them in FP32"
)
MISSING = (
    "results are missing: the ranges do not fit the values of the frames; calibrate on frames like those in service, "
    "with the same scale, mean and std (0 to 1 is not 0 to 255)"
)


def likely_cause(agreement: Agreement | None) -> str:
    """Return the usual reason why two models differ in this way, and where to look."""
    if agreement is None:
        return PRECISION
    missing = agreement.expected - agreement.matched
    if not missing:
        return EXTRA
    if 2 * agreement.other_class > missing:
        return OTHER_CLASSES
    return MOVED if 2 * agreement.moved > missing else MISSING


def _unmatched(wanted: Sequence[Found], offered: Sequence[Found]) -> list[Found]:
    """The wanted boxes without a box of their class at their place."""
    return [
        each
        for each in wanted
        if not any(b.class_id == each.class_id and overlap(each.box, b.box) >= LEAST_OVERLAP for b in offered)
    ]


def _match(wanted: Sequence[Found], offered: Sequence[Found]) -> set[int]:
    """Give each wanted box, best scores first, the free box of its class with the largest overlap.

    Return those used.
    """
    used: set[int] = set()
    for each in sorted(wanted, key=lambda found: -found.score):
        candidates = [
            (overlap(each.box, other.box), index)
            for index, other in enumerate(offered)
            if other.class_id == each.class_id and index not in used
        ]
        best, index = max(candidates, default=(0.0, -1))
        if best >= LEAST_OVERLAP:
            used.add(index)
    return used

"""The meaning of the last values of a YOLO candidate, from their number. Pure.

A candidate has 4 values of its box, some of its score, one for each class, and then extras: nothing, the values of
keypoints, an angle, or mask coefficients. The number of values alone does not say which: the hints do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from forebay_server.service.results.heads.extras import NO_EXTRAS, Extras
from forebay_server.service.results.heads.names import HeadName

ObjectTask = Literal["detection", "segmentation", "pose", "oriented"]

COCO_KEYPOINTS = (17, 3)
UNKNOWN = -1  # number of values
IMPOSSIBLE = -2


@dataclass(frozen=True, slots=True)
class Hints:
    """The facts about a model besides the shapes of its outputs; None where unknown.

    Attributes:
        task: of the configuration or of the exporter's metadata.
        head: of the configuration: only this family is considered.
        class_count: number of names in the exporter's metadata, or of labels.
        keypoint_shape: number of keypoints, and 2 or 3 values for each.
        is_end_to_end: whether the exporter says that the model suppresses duplicates itself.
        exporter_head: the exporter's own name of the head, such as RTDETRDecoder; may be empty.
    """

    task: ObjectTask | None = None
    head: HeadName | None = None
    class_count: int | None = None
    keypoint_shape: tuple[int, int] | None = None
    is_end_to_end: bool | None = None
    exporter_head: str = ""


class Prototypes(NamedTuple):
    """The output of mask prototypes.

    Attributes:
        output: its index.
        prototype_count: and so number of coefficients.
    """

    output: int
    prototype_count: int


class Columns(NamedTuple):
    """One meaning of the values after the box and the score.

    Attributes:
        class_count: number of class scores.
        extras: the values after them.
        parameters: of a configuration that choose this meaning among several.
    """

    class_count: int
    extras: Extras
    parameters: Mapping[str, str]


def meanings_of(values: int, hints: Hints, prototypes: Prototypes | None, *, has_scores: bool) -> list[Columns]:
    """Return the meanings that `values` numbers after the box and its score may have.

    Args:
        values: their number, UNKNOWN or IMPOSSIBLE.
        hints: about the model.
        prototypes: the output of mask prototypes; None without.
        has_scores: whether there is a score for each class among them; otherwise all are extras.
    """
    counts = [0] if not has_scores else [] if hints.class_count is None else [hints.class_count]
    if values == IMPOSSIBLE or (values == UNKNOWN and not counts):
        return []
    found: list[Columns] = []
    for extras, parameters in _possible_extras(values, counts, hints, prototypes):
        class_count = counts[0] if counts else values - extras.value_count
        is_whole = values == UNKNOWN or values == class_count + extras.value_count
        if is_whole and (class_count >= 1 or not has_scores):
            found.append(Columns(class_count, extras, parameters))
    return found


def _possible_extras(
    values: int, counts: list[int], hints: Hints, prototypes: Prototypes | None
) -> list[tuple[Extras, Mapping[str, str]]]:
    task = hints.task
    found: list[tuple[Extras, Mapping[str, str]]] = []
    if prototypes is not None and task in {None, "segmentation"}:
        masks = Extras(coefficient_count=prototypes.prototype_count, prototypes_output=prototypes.output)
        return [(masks, {"task": "segmentation"})]
    if task in {None, "detection"}:
        # the objects of a segmentation model without their masks
        unused = NO_EXTRAS if prototypes is None else Extras(coefficient_count=prototypes.prototype_count)
        found.append((unused, {"task": "detection"}))
    if task == "oriented" or (task is None and counts):
        found.append((Extras(has_angle=True), {"task": "oriented"}))
    if task in {None, "pose"}:
        found.extend(
            (Extras(keypoint_count=count, keypoint_values=each), {"task": "pose", "keypoint_shape": f"{count}x{each}"})
            for count, each in _keypoint_shapes(values, counts, hints)
        )
    return found


def _keypoint_shapes(values: int, counts: list[int], hints: Hints) -> list[tuple[int, int]]:
    if hints.keypoint_shape is not None:
        return [hints.keypoint_shape]
    if values == UNKNOWN:
        return []
    rest = values - (counts[0] if counts else 1)
    if hints.task is None:
        # nearly any number could be keypoints: consider the most frequent alone, people with 17
        return [COCO_KEYPOINTS] if rest == COCO_KEYPOINTS[0] * COCO_KEYPOINTS[1] else []
    return [(rest // each, each) for each in (3, 2) if rest > 1 and rest % each == 0]

"""The metadata that Ultralytics' exporters write into a model file: names of classes, size, task, keypoints. Pure.

Values are texts of Python literals. Each is read as data within limits, so that a file can neither run code nor take
memory; a value that cannot be read is named in one line and left out.
"""

import ast
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Task = Literal["detection", "segmentation", "pose", "oriented", "classification"]

MAX_CLASSES = 65_536
MAX_LABEL_CHARACTERS = 256
MAX_LITERAL_CHARACTERS = 1 << 20
MAX_NESTING = 3  # of brackets; a dict of names has one
MAX_SIDE_PIXELS = 65_535
MAX_KEYPOINTS = 1_000

_TURNS = frozenset(("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"))  # of the direction of writing
_TASKS: Mapping[str, Task] = {
    "detect": "detection",
    "segment": "segmentation",
    "pose": "pose",
    "obb": "oriented",
    "classify": "classification",
}
# Possessive, and content without its closing quote: otherwise an open quote costs the square of the text's length.
_STRINGS = re.compile(r"'(?:[^'\\]|\\.)*+'?|\"(?:[^\"\\]|\\.)*+\"?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Hints:
    """The content of the metadata of a file; None where a value is missing.

    Attributes:
        task: of the model.
        labels: name of each class, by its number; a number without a name is its own name.
        image_size: width and height in pixels.
        keypoint_shape: number of keypoints, and values of each (2 or 3).
        channels: of the picture, 1 or 3.
        is_end_to_end: whether the model suppresses duplicates itself.
        exporter_head: the exporter's own name of the head, such as RTDETRDecoder; empty if it is not written.
        is_yolo: whether the file comes from one of the YOLO exporters that write names and a stride: its pictures are
            letterboxed RGB from 0 to 1 (classifiers: a centre crop).
        faults: one line for each value that cannot be used.
    """

    task: Task | None = None
    labels: tuple[str, ...] | None = None
    image_size: tuple[int, int] | None = None
    keypoint_shape: tuple[int, int] | None = None
    channels: int | None = None
    is_end_to_end: bool | None = None
    exporter_head: str = ""
    is_yolo: bool = False
    faults: tuple[str, ...] = ()


class _UnusableError(Exception):
    """A value of the metadata; the message completes "is ..."."""


def read_hints(metadata: Mapping[str, str]) -> Hints:
    """Return the content of the metadata. Never raises for it."""
    if "names" not in metadata or not ("stride" in metadata or "task" in metadata):
        return Hints()
    faults: list[str] = []

    def read(key: str, convert: Any) -> Any:  # noqa: ANN401 - a converter's own type
        if key not in metadata:
            return None
        try:
            return convert(metadata[key])
        except _UnusableError as error:
            faults.append(f"the file's metadata {key!r} is {error}: it is not used")
            return None

    task = read("task", _task)
    args = read("args", _dict) or {}
    ends = [value for value in (read("end2end", _truth), args.get("nms")) if isinstance(value, bool)]
    return Hints(
        task=task,
        labels=read("names", _labels),
        image_size=read("imgsz", _size),
        keypoint_shape=read("kpt_shape", _keypoint_shape),
        channels=read("channels", _channels),
        is_end_to_end=any(ends) if ends else None,
        exporter_head=metadata.get("head", "")[:MAX_LABEL_CHARACTERS],
        is_yolo=True,
        faults=tuple(faults),
    )


def _literal(text: str) -> Any:  # noqa: ANN401 - any Python literal
    if len(text) > MAX_LITERAL_CHARACTERS:
        raise _UnusableError(f"longer than {MAX_LITERAL_CHARACTERS} characters")
    depth = deepest = 0
    for character in _STRINGS.sub("", text):
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    if deepest > MAX_NESTING:
        raise _UnusableError(f"nested more than {MAX_NESTING} deep")
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        raise _UnusableError("no list or dict of plain values") from None


def _task(text: str) -> Task:
    task = _TASKS.get(text)
    if task is None:
        raise _UnusableError(f"{text[:32]!r}, none of {', '.join(_TASKS)}")
    return task


def _labels(text: str) -> tuple[str, ...]:
    names = _literal(text)
    if isinstance(names, (list, tuple)):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        raise _UnusableError("no list or dict of names")
    if len(names) > MAX_CLASSES:
        raise _UnusableError(f"of {len(names)} classes, more than {MAX_CLASSES}")
    if not all(type(number) is int and 0 <= number < MAX_CLASSES for number in names):
        raise _UnusableError(f"a dict whose keys are not numbers of classes, 0 to {MAX_CLASSES - 1}")
    labels = [str(number) for number in range(max(names) + 1)]
    for number, name in names.items():
        label = name if isinstance(name, str) else str(name) if _is_short(name) else None
        if label is None or len(label) > MAX_LABEL_CHARACTERS or _has_control(label):
            raise _UnusableError(
                f"without a name of at most {MAX_LABEL_CHARACTERS} characters, none of control, for {number}"
            )
        labels[number] = label.strip() or str(number)
    return tuple(labels)


def _is_short(name: object) -> bool:
    """Whether a name is a number of few digits: Python writes no number of thousands of them."""
    return isinstance(name, int) and abs(name) < 10**MAX_LABEL_CHARACTERS


def _has_control(label: str) -> bool:
    """Whether a terminal or a log could be confused: all other characters may belong to a word of some language."""
    return any(
        unicodedata.category(character) in {"Cc", "Cs"} or unicodedata.bidirectional(character) in _TURNS
        for character in label
    )


def _size(text: str) -> tuple[int, int]:
    value = _literal(text)
    sides = [value, value] if type(value) is int else value
    if not (
        isinstance(sides, (list, tuple))
        and len(sides) == 2
        and all(type(side) is int and 1 <= side <= MAX_SIDE_PIXELS for side in sides)
    ):
        raise _UnusableError(f"{text[:32]!r}, not a height and a width from 1 to {MAX_SIDE_PIXELS}")
    height, width = sides
    return width, height


def _keypoint_shape(text: str) -> tuple[int, int]:
    value = _literal(text)
    if not (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and all(type(number) is int for number in value)
        and 1 <= value[0] <= MAX_KEYPOINTS
        and value[1] in {2, 3}
    ):
        raise _UnusableError(f"{text[:32]!r}, not a number of keypoints up to {MAX_KEYPOINTS} and 2 or 3 values")
    return value[0], value[1]


def _channels(text: str) -> int:
    if text not in {"1", "3"}:
        raise _UnusableError(f"{text[:32]!r}, neither 1 nor 3")
    return int(text)


def _truth(text: str) -> bool:
    if text.lower() not in {"true", "false"}:
        raise _UnusableError(f"{text[:32]!r}, neither True nor False")
    return text.lower() == "true"


def _dict(text: str) -> dict[Any, Any]:
    value = _literal(text)
    if not isinstance(value, dict):
        raise _UnusableError("no dict")
    return value

"""Forebay's own keys among the `parameters` of a configuration, checked; all other keys are the backend's options.

    key               values                              default
    task              detection, classification, tensors  tensors
    color_order       RGB, BGR                            RGB
    latency_budget_ms milliseconds, above 0               the service decides
    score_threshold   0..1                                detection 0.4, classification none
    iou_threshold     0..1                                0.5
    max_results       1 or more                           detection 100, classification 5
    jpeg              exact, fast                         exact
    labels            names with commas between them      the output's label_filename

`task` is the meaning of the outputs. *detection*: an output `boxes` [n, 4] (x_min, y_min, x_max, y_max, 0..1), an
output `scores` [n], and, unless there is only one class, an output `class_ids` [n]. *classification*: one output
[classes], called `scores` if there are several outputs. *tensors*: the outputs are sent unchanged.

`color_order` is the order of channels in memory; only for models whose single input is uint8 [height, width, 3].
`jpeg: fast` lets a JPEG be decoded at a reduced size, which is quicker and changes pixels a little.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

from forebay.wire.model_config_pb2 import ModelConfig
from forebay_server.service.models.config_text import ConfigError
from forebay_server.service.pictures.picture_input import ColorOrder, JpegScale

TaskName = Literal["detection", "classification", "tensors"]

MAX_BUDGET_MS = 3_600_000.0  # an hour: anything longer is a mistake in the unit
MAX_RESULTS = 10_000
MAX_SHOWN = 60  # characters of a wrong value in a message
OWN_KEYS = (
    "task",
    "color_order",
    "jpeg",
    "latency_budget_ms",
    "score_threshold",
    "iou_threshold",
    "max_results",
    "labels",
)


@dataclass(frozen=True, slots=True)
class OwnParameters:
    """Forebay's keys of one configuration; None where not given.

    Attributes:
        task: meaning of the outputs.
        color_order: of pictures.
        jpeg: whether a JPEG may be decoded at a reduced size.
        latency_budget_ms: default of LATEST streams.
        score_threshold: 0..1.
        iou_threshold: 0..1.
        max_results: at least 1.
        labels: names of the classes.
        backend_options: every other key, as written.
    """

    task: TaskName = "tensors"
    color_order: ColorOrder | None = None
    jpeg: JpegScale | None = None
    latency_budget_ms: float | None = None
    score_threshold: float | None = None
    iou_threshold: float | None = None
    max_results: int | None = None
    labels: tuple[str, ...] | None = None
    backend_options: Mapping[str, str] = field(default_factory=dict)


def read_parameters(config: ModelConfig, filename: str) -> OwnParameters:
    """Check Forebay's keys.

    Args:
        config: as written.
        filename: for messages, relative to the repository.

    Raises:
        ConfigError: a value out of range, or a key that resembles one of Forebay's.
    """
    reader = _Reader({key: value.string_value for key, value in config.parameters.items()}, filename)
    return OwnParameters(
        task=cast("TaskName", reader.choice("task", ("detection", "classification", "tensors")) or "tensors"),
        color_order=cast("ColorOrder | None", reader.choice("color_order", ("RGB", "BGR"))),
        jpeg=cast("JpegScale | None", reader.choice("jpeg", ("exact", "fast"))),
        latency_budget_ms=reader.number("latency_budget_ms", 0.001, MAX_BUDGET_MS),
        score_threshold=reader.number("score_threshold", 0.0, 1.0),
        iou_threshold=reader.number("iou_threshold", 0.0, 1.0),
        max_results=reader.whole("max_results", 1, MAX_RESULTS),
        labels=reader.names("labels"),
        backend_options=reader.others(),
    )


class _Reader:
    def __init__(self, values: Mapping[str, str], filename: str) -> None:
        self._values = values
        self._filename = filename

    def choice(self, key: str, choices: tuple[str, ...]) -> str | None:
        value = self._values.get(key)
        if value is not None and value not in choices:
            raise self._error(key, f"one of {', '.join(choices)}")
        return value

    def number(self, key: str, least: float, most: float) -> float | None:
        if key not in self._values:
            return None
        try:
            number = float(self._values[key])
        except ValueError:
            number = float("nan")
        if not least <= number <= most:  # false for NaN as well
            raise self._error(key, f"a number from {least:g} to {most:g}")
        return number

    def whole(self, key: str, least: int, most: int) -> int | None:
        value = self._values.get(key)
        if value is None:
            return None
        if not (value.isascii() and value.isdigit() and len(value) <= len(str(most)) and least <= int(value) <= most):
            raise self._error(key, f"a whole number from {least} to {most}")
        return int(value)

    def names(self, key: str) -> tuple[str, ...] | None:
        value = self._values.get(key)
        if value is None:
            return None
        names = tuple(name.strip() for name in value.split(","))
        if not all(names):
            raise self._error(key, "names with commas between them, none empty")
        return names

    def others(self) -> dict[str, str]:
        others = {key: value for key, value in self._values.items() if key not in OWN_KEYS}
        for key in others:
            if close := difflib.get_close_matches(key, OWN_KEYS, n=1, cutoff=0.85):
                raise ConfigError(f"{self._filename}: parameter {key!r}: did you mean {close[0]!r}?")
        return others

    def _error(self, key: str, expected: str) -> ConfigError:
        value = self._values[key]
        shown = value if len(value) <= MAX_SHOWN else value[:MAX_SHOWN] + "..."
        return ConfigError(f"{self._filename}: parameter {key!r} is {shown!r}: it must be {expected}")

"""Forebay's own keys among the `parameters` of a configuration, checked; all other keys are the backend's options.

    key               values                              default
    task              detection, classification, tensors  tensors
    latency_budget_ms milliseconds, above 0               the service decides
    score_threshold   0..1                                detection 0.4, classification none
    iou_threshold     0..1                                0.5
    max_results       1 or more                           detection 100, classification 5
    labels            names with commas between them      the output's label_filename

`task` is the meaning of the outputs. *detection*: an output `boxes` [n, 4] (x_min, y_min, x_max, y_max, 0..1), an
output `scores` [n], and, unless there is only one class, an output `class_ids` [n]. *classification*: one output
[classes], called `scores` if there are several outputs. *tensors*: the outputs are sent unchanged.

`service.models.picture_parameters` has the keys for pictures.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

from forebay.wire.model_config_pb2 import ModelConfig
from forebay_server.service.models.parameter_reader import ParameterReader
from forebay_server.service.models.picture_parameters import (
    PICTURE_KEYS,
    PictureParameters,
    read_picture_parameters,
)

TaskName = Literal["detection", "classification", "tensors"]

MAX_BUDGET_MS = 3_600_000.0  # an hour: anything longer is a mistake in the unit
MAX_RESULTS = 10_000
OWN_KEYS = (
    "task",
    *PICTURE_KEYS,
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
        picture: how frames become the model's picture.
        latency_budget_ms: default of LATEST streams.
        score_threshold: 0..1.
        iou_threshold: 0..1.
        max_results: at least 1.
        labels: names of the classes.
        backend_options: every other key, as written.
    """

    task: TaskName = "tensors"
    picture: PictureParameters = field(default_factory=PictureParameters)
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
    reader = ParameterReader({key: value.string_value for key, value in config.parameters.items()}, filename)
    return OwnParameters(
        task=cast("TaskName", reader.choice("task", ("detection", "classification", "tensors")) or "tensors"),
        picture=read_picture_parameters(reader),
        latency_budget_ms=reader.number("latency_budget_ms", 0.001, MAX_BUDGET_MS),
        score_threshold=reader.number("score_threshold", 0.0, 1.0),
        iou_threshold=reader.number("iou_threshold", 0.0, 1.0),
        max_results=reader.whole("max_results", 1, MAX_RESULTS),
        labels=reader.names("labels"),
        backend_options=reader.others(OWN_KEYS),
    )

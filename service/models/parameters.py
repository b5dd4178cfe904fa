"""Forebay's own keys among the `parameters` of a configuration, checked; all other keys are the backend's options.

    key               values                                       default
    task              detection, segmentation, pose, oriented,     from the file's metadata, else tensors
                      classification, tensors
    head              a name in results.heads.names                from names and shapes of the outputs
    nms               class, agnostic, none                        the head's
    keypoint_shape    such as 17x3: keypoints, values of each      from the metadata
    keypoint_names    names with commas between them               none
    first_class       0 or 1: the number of the first class        1; of head tf_detection
    box_unit          pixel, picture: of the coordinates of boxes  pixel; of head efficient_nms
    activation        none, softmax, sigmoid; of classifications   none
    latency_budget_ms milliseconds, above 0                        the service decides
    score_threshold   0..1                                         detection 0.4, classification none
    iou_threshold     0..1                                         0.5
    max_results       1 or more                                    detection 100, classification 5
    output_rows       1..100000: rows of outputs with as many as   none
                      objects were found
    labels            names with commas between them, or in JSON   the output's label_filename, the metadata, labels.txt

`task` is the meaning of the outputs, `head` the family of exporters that wrote them (`results.heads`). *tensors*: the
outputs are sent unchanged.

`service.models.picture_parameters` has the keys for pictures.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast, get_args

from forebay.wire.model_config_pb2 import ModelConfig
from forebay_server.service.models.parameter_reader import ParameterReader
from forebay_server.service.models.picture_parameters import (
    PICTURE_KEYS,
    PictureParameters,
    read_picture_parameters,
)
from forebay_server.service.results.heads.columns import ObjectTask
from forebay_server.service.results.heads.names import HeadName, Nms
from forebay_server.service.results.task import Activation

TaskName = Literal["detection", "segmentation", "pose", "oriented", "classification", "tensors"]
BoxUnit = Literal["pixel", "picture"]

MAX_BUDGET_MS = 3_600_000.0  # an hour: anything longer is a mistake in the unit
MAX_RESULTS = 10_000
MOST_OUTPUT_ROWS = 100_000  # raw heads at 1280x1280 have 51,200 rows
MAX_KEYPOINTS = 1000
TASK_KEYS = (
    "task",
    "head",
    "nms",
    "keypoint_shape",
    "keypoint_names",
    "first_class",
    "box_unit",
    "activation",
    "score_threshold",
    "iou_threshold",
    "max_results",
    "output_rows",
    "labels",
)
OWN_KEYS = (*TASK_KEYS, *PICTURE_KEYS, "latency_budget_ms")


@dataclass(frozen=True, slots=True)
class OwnParameters:
    """Forebay's keys of one configuration; None where not given.

    Attributes:
        task: meaning of the outputs.
        head: family of the outputs.
        nms: non-maximum suppression.
        keypoint_shape: number of keypoints, and 2 or 3 values of each.
        keypoint_names: of a pose model.
        first_class: number that a model of TensorFlow gives the first class.
        box_unit: of EfficientNMS: a pixel of the model's picture, or the whole picture.
        activation: from outputs of a classification to scores.
        picture: how frames become the model's picture.
        latency_budget_ms: default of LATEST streams.
        score_threshold: 0..1.
        iou_threshold: 0..1.
        max_results: at least 1.
        output_rows: rows of outputs that leave their number open.
        labels: names of the classes.
        backend_options: every other key, as written.
    """

    task: TaskName | None = None
    head: HeadName | None = None
    nms: Nms | None = None
    keypoint_shape: tuple[int, int] | None = None
    keypoint_names: tuple[str, ...] | None = None
    first_class: int | None = None
    box_unit: BoxUnit | None = None
    activation: Activation | None = None
    picture: PictureParameters = field(default_factory=PictureParameters)
    latency_budget_ms: float | None = None
    score_threshold: float | None = None
    iou_threshold: float | None = None
    max_results: int | None = None
    output_rows: int | None = None
    labels: tuple[str, ...] | None = None
    backend_options: Mapping[str, str] = field(default_factory=dict)

    @property
    def object_task(self) -> ObjectTask | None:
        """The task, if its results are objects."""
        return None if self.task in {None, "classification", "tensors"} else cast("ObjectTask", self.task)

    @property
    def written(self) -> frozenset[str]:
        """Names of the keys that are given."""
        return frozenset(key for key in TASK_KEYS if getattr(self, key) is not None) | set(self.picture.written)


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
        task=cast("TaskName | None", reader.choice("task", get_args(TaskName))),
        head=cast("HeadName | None", reader.choice("head", get_args(HeadName))),
        nms=cast("Nms | None", reader.choice("nms", get_args(Nms))),
        keypoint_shape=reader.shape("keypoint_shape", (2, 3), MAX_KEYPOINTS),
        keypoint_names=reader.names("keypoint_names"),
        first_class=reader.whole("first_class", 0, 1),
        box_unit=cast("BoxUnit | None", reader.choice("box_unit", get_args(BoxUnit))),
        activation=cast("Activation | None", reader.choice("activation", get_args(Activation))),
        picture=read_picture_parameters(reader),
        latency_budget_ms=reader.number("latency_budget_ms", 0.001, MAX_BUDGET_MS),
        score_threshold=reader.number("score_threshold", 0.0, 1.0),
        iou_threshold=reader.number("iou_threshold", 0.0, 1.0),
        max_results=reader.whole("max_results", 1, MAX_RESULTS),
        output_rows=reader.whole("output_rows", 1, MOST_OUTPUT_ROWS),
        labels=reader.names("labels"),
        backend_options=reader.others(OWN_KEYS),
    )

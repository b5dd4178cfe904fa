"""From a model's parameters, labels and outputs to the task whose results it gives. Pure.

`task_of` works from the configuration alone; `resolved` finds the outputs that the task reads, once they are known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from forebay_server.engines.datatypes import NAME_BY_DTYPE
from forebay_server.engines.engine import EngineSpecs, TensorSpec
from forebay_server.service.models.config_text import ConfigError
from forebay_server.service.models.parameters import OwnParameters
from forebay_server.service.results.heads.boxes_scores import BoxesScoresHead
from forebay_server.service.results.heads.columns import Hints
from forebay_server.service.results.heads.counted import EfficientNmsHead, TfDetectionHead
from forebay_server.service.results.heads.head import Head
from forebay_server.service.results.heads.matching import FORMS, Ambiguous, match
from forebay_server.service.results.task import ClassificationTask, DetectionTask, Task

MAX_SHOWN_OUTPUTS = 8
KEY_OF_HEAD = {"first_class": "tf_detection", "box_unit": "efficient_nms"}
"""Parameters that one head has."""


def task_of(own: OwnParameters, labels_by_output: Mapping[str, tuple[str, ...]], filename: str) -> Task | None:
    """Return the task, before its outputs are known; None for tensors.

    Raises:
        ConfigError: parameters that do not belong to the task, or label files that differ.
    """
    if own.task in {None, "tensors"}:
        return None
    labels = own.labels or ()
    if own.labels is None and labels_by_output:
        labels, *others = set(labels_by_output.values())
        if others:
            raise ConfigError(f"{filename}: outputs name label files that differ: a model with a task has one")
    given: dict[str, Any] = {"score_threshold": own.score_threshold, "max_results": own.max_results}
    if own.task == "classification":
        given["activation"] = own.activation
        return _with(ClassificationTask(labels), given)
    given |= {"iou_threshold": own.iou_threshold, "nms": own.nms, "keypoint_names": own.keypoint_names}
    return _with(DetectionTask(labels), given)


def resolved(
    task: Task | None, own: OwnParameters, specs: EngineSpecs, size: tuple[int, int] | None, filename: str
) -> Task | None:
    """Return the task with the outputs that it reads.

    Args:
        task: from `task_of`.
        own: parameters, as written or derived.
        specs: of the opened engine.
        size: width and height of the model's picture; None if it takes tensors only.
        filename: for messages.

    Raises:
        ConfigError: the outputs do not fit the task, or may be read in several ways.
    """
    match task:
        case DetectionTask():
            return replace(task, head=_head(task, own, specs, size, filename))
        case ClassificationTask():
            _check_keys(own, "classification", filename)
            return _resolve_classification(task, specs, filename)
        case None:
            return None


def _with(task: Task, given: Mapping[str, Any]) -> Task:
    return replace(task, **{name: value for name, value in given.items() if value is not None})


def _head(
    task: DetectionTask, own: OwnParameters, specs: EngineSpecs, size: tuple[int, int] | None, filename: str
) -> Head:
    outputs = [_row(spec, specs) for spec in specs.outputs]
    hints = Hints(own.object_task, own.head, len(task.labels) or None, own.keypoint_shape)
    found = match(outputs, size, hints)
    if isinstance(found, Ambiguous):
        ways = [", ".join(f"{key}: {value}" for key, value in each.parameters.items()) for each in found.options]
        raise ConfigError(
            f"{filename}: the outputs {_listed(specs.outputs)} may be read in several ways: write the parameters "
            f"{', or '.join(dict.fromkeys(ways))}"
        )
    if found is None:
        raise ConfigError(_no_head(task, own, outputs, size, hints, filename))
    if isinstance(found, BoxesScoresHead):
        _check_boxes(found, specs, filename)
    return _as_written(found, own, filename)


def _as_written(head: Head, own: OwnParameters, filename: str) -> Head:
    """Return the head with the facts that its outputs do not show."""
    _check_keys(own, head.name, filename)
    if isinstance(head, TfDetectionHead) and own.first_class is not None:
        return replace(head, first_class=own.first_class)
    if isinstance(head, EfficientNmsHead) and own.box_unit is not None:
        return replace(head, is_unit=own.box_unit == "picture")
    return head


def _check_keys(own: OwnParameters, used: str, filename: str) -> None:
    """Raise ConfigError for a parameter of another head than the one used."""
    for key, name in KEY_OF_HEAD.items():
        if getattr(own, key) is not None and used != name:
            raise ConfigError(f"{filename}: {key} is for head {name}, not for {used}: leave it out")


def _no_head(
    task: DetectionTask,
    own: OwnParameters,
    outputs: Sequence[TensorSpec],
    size: tuple[int, int] | None,
    hints: Hints,
    filename: str,
) -> str:
    other = match(outputs, size, replace(hints, class_count=None))
    count = getattr(other, "class_count", None)
    if task.labels and count is not None:
        return _wrong_labels(task, count, filename)
    wanted = f"head {own.head}, {FORMS[own.head]}" if own.head else (own.task or "detection")
    facts = [_counted_labels(len(task.labels))] if task.labels else []
    facts += ["keypoint_shape {}x{}".format(*own.keypoint_shape)] if own.keypoint_shape else []
    given = f" with {' and '.join(facts)}: correct these, or" if facts else ":"
    return (
        f"{filename}: outputs {_listed(outputs)} do not fit {wanted}{given} write the parameter 'head' "
        f"({', '.join(FORMS)}), or 'task: tensors' to get the outputs as they are"
    )


def _wrong_labels(task: Task, count: int, filename: str) -> str:
    is_one = len(task.labels) == 1
    return (
        f"{filename}: there {'is' if is_one else 'are'} {_counted_labels(len(task.labels))} for the model's {count} "
        f"classes: give {count}, by the parameter 'labels' or in the label file"
    )


def _counted_labels(count: int) -> str:
    return f"{count} label{'s' * (count != 1)}"


def _row(spec: TensorSpec, specs: EngineSpecs) -> TensorSpec:
    """Of one frame: a model without a batch dimension may have a first dimension of 1."""
    is_one = not specs.has_batch_dimension and len(spec.shape) > 1 and spec.shape[0] == 1
    return replace(spec, shape=spec.shape[1:]) if is_one else spec


def _check_boxes(head: BoxesScoresHead, specs: EngineSpecs, filename: str) -> None:
    count = specs.outputs[head.boxes_output].shape[0]
    _check_output(specs.outputs[head.boxes_output], "f", (-1, 4), filename)
    _check_output(specs.outputs[head.scores_output], "f", (count,), filename)
    if head.class_ids_output is not None:
        _check_output(specs.outputs[head.class_ids_output], "iu", (count,), filename)


def _resolve_classification(task: ClassificationTask, specs: EngineSpecs, filename: str) -> ClassificationTask:
    names = [spec.name for spec in specs.outputs]
    if len(names) > 1 and "scores" not in names:
        raise ConfigError(
            f"{filename}: a classification model needs one output, or one called 'scores'; "
            f"this one gives {_listed(specs.outputs)}"
        )
    index = names.index("scores") if len(names) > 1 else 0
    spec = _row(specs.outputs[index], specs)
    _check_output(spec, "f", (-1,), filename)
    if task.labels and spec.shape[0] not in {-1, len(task.labels)}:
        raise ConfigError(_wrong_labels(task, spec.shape[0], filename))
    return replace(task, scores_output=index)


def _check_output(spec: TensorSpec, kinds: str, shape: tuple[int, ...], filename: str) -> None:
    if spec.dtype.kind not in kinds or not _fits(shape, spec.shape):
        numbers = "floats" if kinds == "f" else "integers"
        raise ConfigError(
            f"{filename}: output {spec.name!r} must be {numbers} {list(shape)}; the model gives {_listed([spec])}"
        )


def _fits(dims: Sequence[int], shape: Sequence[int]) -> bool:
    return len(dims) == len(shape) and all(-1 in pair or pair[0] == pair[1] for pair in zip(dims, shape, strict=True))


def _listed(specs: Sequence[TensorSpec]) -> str:
    shown = [f"{spec.name!r} {NAME_BY_DTYPE[spec.dtype]} {list(spec.shape)}" for spec in specs[:MAX_SHOWN_OUTPUTS]]
    return ", ".join(shown) + (", ..." if len(specs) > MAX_SHOWN_OUTPUTS else "")

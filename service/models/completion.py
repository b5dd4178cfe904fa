"""Completes a description with the opened engine's inputs and outputs: checks it against them, then normalises.

Pure.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from forebay.wire.model_config_pb2 import DataType, ModelConfig, ModelInput, ModelOutput
from forebay_server.engines.datatypes import NAME_BY_DTYPE
from forebay_server.engines.engine import EngineSpecs, TensorSpec
from forebay_server.service.models.config_text import ConfigError
from forebay_server.service.models.description import ModelDescription
from forebay_server.service.models.normal_form import data_type_of, normalised
from forebay_server.service.models.parameters import read_parameters
from forebay_server.service.models.picture_completion import picture_of
from forebay_server.service.pictures.picture_input import PictureInput
from forebay_server.service.results.heads.boxes_scores import BoxesScoresHead
from forebay_server.service.results.task import ClassificationTask, DetectionTask, Task


def complete(description: ModelDescription, specs: EngineSpecs) -> ModelDescription:
    """Return the description that serves: with `specs`, `image`, output indices and a normalised configuration.

    Raises:
        ConfigError: the configuration contradicts the model file.
    """
    filename = description.config_name
    if (description.max_batch_size or 0) > specs.max_batch_size:
        raise ConfigError(
            f"{filename}: max_batch_size is {description.max_batch_size}, but the model takes at most "
            f"{specs.max_batch_size}: lower it, or give the model a first dimension that varies"
        )
    _check_tensors("input", description.config.input, specs.inputs, filename)
    _check_tensors("output", description.config.output, specs.outputs, filename)
    return replace(
        description,
        max_batch_size=specs.max_batch_size if specs.has_batch_dimension else 0,
        specs=specs,
        image=_picture(description, specs, filename),
        task=_resolve(description.task, specs, filename),
        config=normalised(description, specs),
    )


def _picture(description: ModelDescription, specs: EngineSpecs, filename: str) -> PictureInput | None:
    given = read_parameters(description.config, filename).picture
    if description.is_folded:  # its own layout and numbers are behind the input
        given = replace(given, layout="NHWC", scale=None, mean=None, std=None)
    return picture_of(specs, given, filename)


def optional_in_vain(config: ModelConfig, specs: EngineSpecs) -> list[str]:
    """Return one line for each input that the configuration calls optional but the model requires."""
    required = {spec.name for spec in specs.inputs if not spec.is_optional}
    return [
        f"input {tensor.name!r} is not optional: the model has no initializer of that name, so that requests must "
        "have it"
        for tensor in config.input
        if tensor.optional and tensor.name in required
    ]


def _check_tensors(
    kind: str, written: Sequence[ModelInput] | Sequence[ModelOutput], specs: Sequence[TensorSpec], filename: str
) -> None:
    by_name = {spec.name: spec for spec in specs}
    for tensor in written:
        spec = by_name.get(tensor.name)
        if spec is None:
            names = ", ".join(repr(name) for name in by_name)
            raise ConfigError(f"{filename}: the model has no {kind} {tensor.name!r}: it has {names}")
        expected = data_type_of(spec)
        if tensor.data_type not in (DataType.TYPE_INVALID, expected):
            raise ConfigError(
                f"{filename}: {kind} {tensor.name!r} is {DataType.Name(tensor.data_type)}, "
                f"but the model has {DataType.Name(expected)}: write that"
            )
        dims = tuple(tensor.reshape.shape) if tensor.HasField("reshape") else tuple(tensor.dims)
        if tensor.dims and not _fits(dims, spec.shape):
            raise ConfigError(
                f"{filename}: {kind} {tensor.name!r} has dims {list(dims)}, but the model has {list(spec.shape)}: "
                "write these, without the batch dimension if max_batch_size is above 0"
            )
        if tensor.HasField("reshape"):
            _check_reshape(f"{filename}: {kind} {tensor.name!r}", tuple(tensor.dims), dims, spec)


def _check_reshape(where: str, dims: tuple[int, ...], reshape: tuple[int, ...], spec: TensorSpec) -> None:
    """Raise ConfigError unless the two shapes always have the same number of elements."""
    if any(dim == -1 and known != -1 for dim, known in zip(reshape, spec.shape, strict=True)):
        raise ConfigError(
            f"{where}: reshape {list(reshape)} varies where the model has {list(spec.shape)}: write these"
        )
    counts = [(shape.count(-1), math.prod(dim for dim in shape if dim != -1)) for shape in (dims, reshape)]
    if counts[0] != counts[1]:
        raise ConfigError(
            f"{where}: dims {list(dims)} and reshape {list(reshape)} do not hold the same number of elements"
        )


def _fits(dims: Sequence[int], shape: Sequence[int]) -> bool:
    return len(dims) == len(shape) and all(-1 in pair or pair[0] == pair[1] for pair in zip(dims, shape, strict=True))


def _resolve(task: Task | None, specs: EngineSpecs, filename: str) -> Task | None:
    match task:
        case DetectionTask():
            return _resolve_detection(task, specs, filename)
        case ClassificationTask():
            return _resolve_classification(task, specs, filename)
        case None:
            return None


def _resolve_detection(task: DetectionTask, specs: EngineSpecs, filename: str) -> DetectionTask:
    names = [spec.name for spec in specs.outputs]
    if "boxes" not in names or "scores" not in names:
        raise ConfigError(
            f"{filename}: a detection model needs outputs 'boxes' [n, 4] and 'scores' [n], and 'class_ids' [n] unless "
            f"there is only one class; this one gives {_listed(specs.outputs)}"
        )
    boxes, scores = names.index("boxes"), names.index("scores")
    class_ids = names.index("class_ids") if "class_ids" in names else None
    _check_output(specs.outputs[boxes], "f", (-1, 4), filename)
    count = specs.outputs[boxes].shape[0]
    _check_output(specs.outputs[scores], "f", (count,), filename)
    if class_ids is not None:
        _check_output(specs.outputs[class_ids], "iu", (count,), filename)
    return replace(task, head=BoxesScoresHead(boxes, scores, class_ids))


def _resolve_classification(task: ClassificationTask, specs: EngineSpecs, filename: str) -> ClassificationTask:
    names = [spec.name for spec in specs.outputs]
    if len(names) > 1 and "scores" not in names:
        raise ConfigError(
            f"{filename}: a classification model needs one output, or one called 'scores'; "
            f"this one gives {_listed(specs.outputs)}"
        )
    index = names.index("scores") if len(names) > 1 else 0
    _check_output(specs.outputs[index], "f", (-1,), filename)
    return replace(task, scores_output=index)


def _check_output(spec: TensorSpec, kinds: str, shape: tuple[int, ...], filename: str) -> None:
    if spec.dtype.kind not in kinds or not _fits(shape, spec.shape):
        numbers = "floats" if kinds == "f" else "integers"
        raise ConfigError(
            f"{filename}: output {spec.name!r} must be {numbers} {list(shape)}; the model gives {_listed([spec])}"
        )


def _listed(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{spec.name!r} {NAME_BY_DTYPE[spec.dtype]} {list(spec.shape)}" for spec in specs)

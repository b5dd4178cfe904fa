"""Completes a description with the opened engine's inputs and outputs: checks it against them, then normalises.

Pure.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from forebay.wire.model_config_pb2 import DataType, ModelConfig, ModelInput, ModelOutput
from forebay_server.engines.engine import EngineSpecs, TensorSpec
from forebay_server.service.models.config_text import ConfigError
from forebay_server.service.models.description import ModelDescription
from forebay_server.service.models.normal_form import data_type_of, normalised
from forebay_server.service.models.parameters import read_parameters
from forebay_server.service.models.picture_completion import picture_of
from forebay_server.service.models.questions import question_of, rows_question_of
from forebay_server.service.models.tasks import resolved
from forebay_server.service.pictures.picture_input import PictureInput
from forebay_server.service.results.task import Task


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
    picture, task, question = _meaning(description, specs, filename)
    return replace(
        description,
        max_batch_size=specs.max_batch_size if specs.has_batch_dimension else 0,
        specs=specs,
        image=picture,
        task=task,
        question=question,
        config=normalised(description, specs),
    )


def _meaning(
    description: ModelDescription, specs: EngineSpecs, filename: str
) -> tuple[PictureInput | None, Task | None, str]:
    """Return the picture, the task, and a question about parameters that are missing for them.

    A fault in a derived task leaves the model to serve tensors: its author asked for nothing else.
    """
    own = read_parameters(description.config, filename)
    try:
        picture = _picture(description, specs, filename)
        size = None if picture is None else (picture.width, picture.height)
        task = resolved(description.task, own, specs, size, filename)
    except ConfigError as error:
        if "task" not in description.derived:
            raise
        return None, None, str(error)
    if picture is None:
        return None, task, question_of(specs, filename)
    return picture, task, rows_question_of(specs, filename, description.observed_rows)


def _picture(description: ModelDescription, specs: EngineSpecs, filename: str) -> PictureInput | None:
    given = read_parameters(description.config, filename).picture
    takes_numbers = any(spec.dtype.kind == "f" for spec in specs.inputs)
    if description.is_folded and not takes_numbers:  # the model's own layout and numbers are behind the input
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

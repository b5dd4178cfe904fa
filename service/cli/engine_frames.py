"""Frames and models for `forebay engine`: pictures as serving would make them, and the model's configuration."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from forebay_server.engines.engine import EngineSpecs
from forebay_server.engines.errors import ModelFileError
from forebay_server.service.models.config_text import ConfigError
from forebay_server.service.models.description import ModelDescription
from forebay_server.service.pictures.picture_input import ColorOrder, PictureInput
from forebay_server.service.request import OutputArrays
from forebay_server.service.results.task import DetectionTask

MOST_PIXELS = 1 << 28  # of one frame; files of the user's own


@dataclass(frozen=True, slots=True)
class Sampling:
    """The frames to take from a source: every `every`-th from `start` on, at most `most`."""

    start: int = 0
    every: int = 1
    most: int = 100


@dataclass(frozen=True, slots=True)
class PictureFlags:
    """Flags that replace what the configuration says; None where not given.

    Attributes:
        color: BGR, RGB or GRAY.
        mean: subtracted from pixels of 0 to 255, one number or three with commas.
        scale: multiplied after that, likewise.
    """

    color: str | None = None
    mean: str | None = None
    scale: str | None = None


def read_feeds(
    source_name: str, picture: PictureInput, specs: EngineSpecs, sampling: Sampling
) -> list[list[NDArray[Any]]]:
    """Read frames of a folder or a video as one row of every input each, made as in service.

    Raises:
        ModelFileError: there are none, or one cannot be read.
    """
    from forebay_server.service.cli.video import SourceError, open_source

    feeds: list[list[NDArray[Any]]] = []
    try:
        with open_source(source_name) as source:
            for index, frame in enumerate(source):
                if len(feeds) == sampling.most:
                    break
                if index >= sampling.start and (index - sampling.start) % sampling.every == 0:
                    feeds.append(_feed(frame, picture, specs))
    except SourceError as error:
        raise ModelFileError(str(error)) from error
    if not feeds:
        raise ModelFileError(f"{source_name}: no frames from number {sampling.start} on")
    return feeds


def _feed(frame: NDArray[np.uint8], picture: PictureInput, specs: EngineSpecs) -> list[NDArray[Any]]:
    """One row of every input from a frame, blue first."""
    from forebay_server.service.frontend.frames.decode.placing import place

    constants = dict(picture.constant_inputs)
    feed: list[NDArray[Any]] = []
    for index, spec in enumerate(specs.inputs):
        shape = (1, *spec.shape) if specs.has_batch_dimension else spec.shape
        if index == picture.input_index:
            target = np.empty(picture.shape, picture.dtype)
            place(target, frame, "BGR", (frame.shape[1], frame.shape[0]), picture, MOST_PIXELS)
            feed.append(target.reshape(shape))
        else:
            feed.append(np.frombuffer(constants[index], spec.dtype).reshape(shape))
    return feed


def describe_model(model: Path, specs: EngineSpecs) -> ModelDescription | None:
    """Return the configuration of a model in a repository, or of a file with one beside it; None for other files."""
    from forebay_server.service.models.completion import complete
    from forebay_server.service.models.parameters import read_parameters

    description = configuration_of(model)
    if description is None:
        return None
    given = read_parameters(description.config, description.config_name).picture
    return complete(replace(description, is_folded=given.fold == "on"), specs)


def configuration_of(model: Path) -> ModelDescription | None:
    """Return the configuration of a file, as written and as its exporter's metadata says, not completed; None: no word.

    Raises:
        ModelFileError: the file is not an ONNX file.
        RepositoryError: the configuration is wrong.
    """
    from forebay_server.engines.onnx_head import read_head
    from forebay_server.service.models.config import describe
    from forebay_server.service.models.derive.derived import with_derived
    from forebay_server.service.models.repository import Repository

    path = model.resolve()
    head = read_head(path) if path.suffix == ".onnx" else None
    folder = path.parent.parent
    if path.parent.name.isdigit() and (folder / "config.pbtxt").is_file():
        entry = Repository([folder.parent]).model(folder.name)
    elif path.with_suffix(".pbtxt").is_file() or (head is not None and head.metadata):
        entry = Repository([path]).model(path.stem)
    else:
        return None
    description = describe(entry)
    return description if head is None else with_derived(description, head.inputs, head.metadata)


def picture_for(specs: EngineSpecs, description: ModelDescription | None, flags: PictureFlags) -> PictureInput:
    """Return the picture that frames become: as in service, changed by the flags.

    Raises:
        ModelFileError: the model takes no pictures, or numbers, and nothing says how pixels become those.
    """
    picture = _changed(None if description is None else description.image, specs, flags)
    if picture.values.dtype == "uint8" or (flags.mean is None and flags.scale is None):
        return picture
    means, scales = _numbers("mean", flags.mean or "0"), _numbers("scale", flags.scale or "1")
    values = replace(picture.values, scale=1.0, mean=means, std=tuple(1 / each for each in scales))
    return replace(picture, values=values)


def _changed(picture: PictureInput | None, specs: EngineSpecs, flags: PictureFlags) -> PictureInput:
    from forebay_server.service.models.picture_completion import has_picture, picture_of
    from forebay_server.service.models.picture_parameters import PictureParameters

    if flags.color not in {None, "BGR", "RGB", "GRAY"}:
        raise ModelFileError(f"color is {flags.color!r}: BGR, RGB or GRAY")
    color = cast("ColorOrder | None", flags.color)
    if picture is not None:
        return replace(picture, color_order=color or picture.color_order)
    if not has_picture(specs):
        listed = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in specs.inputs)
        raise ModelFileError(
            f"the model takes no pictures (one or three channels, last or first): its inputs are {listed}"
        )
    takes_numbers = any(spec.dtype.kind == "f" and len(spec.shape) >= 3 for spec in specs.inputs)
    if takes_numbers and flags.mean is None and flags.scale is None:
        raise ModelFileError(
            "the model takes numbers, and nothing says how pixels become those: write scale, mean and std into its "
            "configuration (docs/models.md, Pictures), or give --scale and --mean as in service, such as "
            "--scale 0.00392157 for a model that takes 0 to 1"
        )
    given = PictureParameters(color_order=color, scale=1.0 if takes_numbers else None, jpeg="exact")
    try:
        found = picture_of(specs, given, "the model")
    except ConfigError as error:
        raise ModelFileError(str(error)) from error
    assert found is not None  # noqa: S101 - for mypy: a parameter is given
    return found


def _numbers(what: str, text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) not in {1, 3} or (what == "scale" and 0.0 in numbers):
        raise ModelFileError(f"{what} is {text!r}: one number, or three with commas")
    return numbers


def feeds_by_name(feeds: Sequence[Sequence[NDArray[Any]]], specs: EngineSpecs) -> list[dict[str, NDArray[Any]]]:
    """Return every feed with the names of the inputs."""
    return [{spec.name: row for spec, row in zip(specs.inputs, feed, strict=True)} for feed in feeds]


def find_objects(
    outputs: OutputArrays, task: DetectionTask, description: ModelDescription, least_score: float
) -> list[Any]:
    """Return the objects that serving would find in a frame of the picture's size, from `least_score` on, as Found."""
    from forebay_server.engines.build.verification import Found
    from forebay_server.service.results.detections import decode_detections
    from forebay_server.service.results.options import ResultOptions

    picture = description.image
    size = (1, 1) if picture is None else (picture.width, picture.height)
    found = decode_detections(outputs, task, ResultOptions(score_threshold=least_score), size, picture)
    return [Found(each.class_id, each.score, each.box) for each in found]

"""Frames and models for `forebay engine`: pictures of the model's size, and the model's configuration."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from forebay_server.engines.build.feeds import Normalisation, PictureInput, feed_of
from forebay_server.engines.engine import EngineSpecs
from forebay_server.engines.errors import ModelFileError
from forebay_server.service.models.description import ModelDescription
from forebay_server.service.request import OutputArrays
from forebay_server.service.results.task import DetectionTask


@dataclass(frozen=True, slots=True)
class Sampling:
    """The frames to take from a source: every `every`-th from `start` on, at most `most`."""

    start: int = 0
    every: int = 1
    most: int = 100


def read_feeds(source_name: str, target: PictureInput, how: Normalisation, sampling: Sampling) -> list[NDArray[Any]]:
    """Read frames of a folder or a video as rows of a model's input. Raises ModelFileError if there are none."""
    import cv2

    from forebay_server.service.cli.video import SourceError, open_source

    feeds: list[NDArray[Any]] = []
    try:
        with open_source(source_name) as source:
            for index, picture in enumerate(source):
                if len(feeds) == sampling.most:
                    break
                if index >= sampling.start and (index - sampling.start) % sampling.every == 0:
                    sized = cv2.resize(picture, (target.width, target.height), interpolation=cv2.INTER_LINEAR)
                    feeds.append(feed_of(sized, target, how))  # type: ignore[arg-type]
    except SourceError as error:
        raise ModelFileError(str(error)) from error
    if not feeds:
        raise ModelFileError(f"{source_name}: no frames from number {sampling.start} on")
    return feeds


def describe_model(model: Path, specs: EngineSpecs) -> ModelDescription | None:
    """Return the configuration of a model in a repository (<name>/<version>/model.*); None for other files."""
    from forebay_server.service.models.completion import complete
    from forebay_server.service.models.config import describe
    from forebay_server.service.models.repository import Repository

    folder = model.resolve().parent.parent
    if not model.resolve().parent.name.isdigit() or not (folder / "config.pbtxt").is_file():
        return None
    description = describe(Repository([folder.parent]).model(folder.name))
    return complete(description, specs)


def normalisation_of(
    description: ModelDescription | None, color: str | None, mean: str | None, scale: str | None
) -> Normalisation:
    """Return how pictures become values: flags first, then the model's configuration, then BGR unchanged."""
    order = color or (description.image.color_order if description is not None and description.image else "BGR")
    if order not in {"BGR", "RGB"}:
        raise ModelFileError(f"color is {order!r}: BGR or RGB")
    return Normalisation(
        "RGB" if order == "RGB" else "BGR", _three("mean", mean or "0,0,0"), _three("scale", scale or "1,1,1")
    )


def _three(what: str, text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) == 1:
        return numbers * 3
    if len(numbers) != 3:
        raise ModelFileError(f"{what} is {text!r}: one number, or three with commas")
    return numbers


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

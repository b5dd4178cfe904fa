"""Pictures to the inputs of a model, for calibration and verification. Pure: knows arrays, not files."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from forebay_server.engines.engine import EngineSpecs, TensorSpec
from forebay_server.engines.errors import ModelFileError

Layout = Literal["NHWC", "NCHW"]
Picture = NDArray[np.uint8]  # (height, width, 3), blue first


@dataclass(frozen=True, slots=True)
class PictureInput:
    """The input of a model that takes pictures.

    Attributes:
        spec: of its only input.
        layout: channels last or first.
        width: pixels.
        height: pixels.
    """

    spec: TensorSpec
    layout: Layout
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Normalisation:
    """For models that do not normalise in the graph: (value - mean) * scale per channel, in the model's channel order.

    A model that takes uint8 normalises itself; this is then not used.
    """

    color_order: Literal["BGR", "RGB"] = "BGR"
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    scale: tuple[float, ...] = (1.0, 1.0, 1.0)


def picture_input(specs: EngineSpecs) -> PictureInput:
    """Return the input of a model that takes pictures: one input with 3 channels, last or first.

    Raises ModelFileError.
    """
    if len(specs.inputs) == 1:
        spec = specs.inputs[0]
        shape = spec.shape if specs.has_batch_dimension else spec.shape[1:]
        if len(shape) == 3 and shape[2] == 3:
            return PictureInput(spec, "NHWC", shape[1], shape[0])
        if len(shape) == 3 and shape[0] == 3:
            return PictureInput(spec, "NCHW", shape[2], shape[1])
    listed = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in specs.inputs)
    raise ModelFileError(f"the model takes no pictures (3 channels, last or first): its inputs are {listed}")


def feed_of(picture: Picture, target: PictureInput, how: Normalisation) -> NDArray[Any]:
    """Return a picture of the model's size as one row of its input, shape (1, ...)."""
    pixels: NDArray[Any] = picture if how.color_order == "BGR" else picture[:, :, ::-1]
    if target.spec.dtype != np.uint8:
        mean, scale = np.array(how.mean, np.float32), np.array(how.scale, np.float32)
        pixels = ((pixels.astype(np.float32) - mean) * scale).astype(target.spec.dtype)
    if target.layout == "NCHW":
        pixels = pixels.transpose(2, 0, 1)
    return np.ascontiguousarray(pixels)[None]

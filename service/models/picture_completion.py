"""From a model's inputs and its picture parameters to the picture that it takes. Pure.

A model whose single input is uint8 [height, width, 3] takes pictures without any parameter. Every other model takes
them if at least one picture parameter is given: its picture is the one input with one or three channels, first or last,
and the other inputs are those that have the same value for every frame (`orig_target_sizes`).
"""

import math
from collections.abc import Sequence
from typing import cast

import numpy as np

from forebay_server.engines.datatypes import NAME_BY_DTYPE
from forebay_server.engines.engine import EngineSpecs, TensorSpec
from forebay_server.service.models.config_text import ConfigError
from forebay_server.service.models.picture_parameters import MAX_SIDE_PIXELS, PictureParameters
from forebay_server.service.pictures.picture_input import DEVICE_PIXELS, PAD_VALUE, Dtype, Layout, PictureInput, Values

DTYPES = tuple(np.dtype(name) for name in ("uint8", "float16", "float32"))
SIZE_INPUTS = ("orig_target_sizes",)
"""Inputs [2] with the width and the height to which a model scales its boxes. They get those of the model's picture, so
that boxes come in its pixels as those of all other models do."""


def has_picture(specs: EngineSpecs) -> bool:
    """Whether frames can become the model's inputs, once parameters say how."""
    others = [spec for spec in specs.inputs if spec.name not in SIZE_INPUTS]
    return len(others) == 1 and _is_picture(_shape(others[0], specs), others[0])


def picture_of(specs: EngineSpecs, given: PictureParameters, filename: str) -> PictureInput | None:
    """Return the picture that a model takes; None if it takes tensors only.

    Args:
        specs: of the opened engine.
        given: parameters, as written or derived.
        filename: for messages.

    Raises:
        ConfigError: the parameters do not fit the model, or one is missing that cannot be guessed.
    """
    found = [index for index, spec in enumerate(specs.inputs) if _is_picture(_shape(spec, specs), spec)]
    others = [spec for spec in specs.inputs if spec.name not in SIZE_INPUTS]
    is_plain = len(specs.inputs) == 1 and _is_plain(specs.inputs[0])
    if not given.written and not is_plain:
        return None
    if len(found) != 1 or len(others) != 1:
        raise ConfigError(
            f"{filename}: {given.written[0]} is for models that take one picture: UINT8, FP16 or FP32, one or three "
            "channels, first or last, with a fixed height and width; this one takes "
            f"{_listed(specs.inputs)}: leave {given.written[0]} out"
        )
    spec = specs.inputs[found[0]]
    shape = _shape(spec, specs)
    layout = _layout(shape, given, f"{filename}: input {spec.name!r} {list(spec.shape)}")
    channels, height, width = shape if layout == "NCHW" else (shape[2], *shape[:2])
    _check_size((width, height), given, filename)
    picture = PictureInput(
        width,
        height,
        given.color_order or ("GRAY" if channels == 1 else "RGB"),
        given.resize or "stretch",
        pad_value=PAD_VALUE if given.pad_value is None else given.pad_value,
        pad_at=given.pad_at or "center",
        resize_to=given.resize_to,
        interpolation=given.interpolation or ("bilinear" if given.resize == "center_crop" else "opencv"),
        values=_values(spec, layout, given, filename),
        jpeg_scale=given.jpeg or "exact",
        device_pixels=DEVICE_PIXELS if given.gpu_decode_pixels is None else given.gpu_decode_pixels,
        input_index=found[0],
        constant_inputs=_constants(specs, found[0], (width, height), filename),
    )
    _check(picture, channels, given, filename)
    return picture


def _shape(spec: TensorSpec, specs: EngineSpecs) -> tuple[int, ...]:
    """Of one picture: a model without a batch dimension may have a first dimension of 1."""
    is_one = not specs.has_batch_dimension and len(spec.shape) == 4 and spec.shape[0] == 1
    return spec.shape[1:] if is_one else spec.shape


def _is_plain(spec: TensorSpec) -> bool:
    return spec.dtype == np.uint8 and len(spec.shape) == 3 and spec.shape[2] == 3 and _is_picture(spec.shape, spec)


def _is_picture(shape: Sequence[int], spec: TensorSpec) -> bool:
    return (
        spec.dtype in DTYPES
        and len(shape) == 3
        and all(1 <= side <= MAX_SIDE_PIXELS for side in shape)
        and (shape[0] in {1, 3} or shape[2] in {1, 3})
    )


def _layout(shape: Sequence[int], given: PictureParameters, where: str) -> Layout:
    fitting: list[Layout] = []
    fitting += ["NHWC"] if shape[2] in {1, 3} else []
    fitting += ["NCHW"] if shape[0] in {1, 3} else []
    if given.layout is not None:
        if given.layout not in fitting:
            raise ConfigError(f"{where} is not {given.layout}: write layout {' or '.join(fitting)}, or leave it out")
        return given.layout
    if len(fitting) > 1:
        raise ConfigError(f"{where} may be NHWC or NCHW: write the parameter 'layout'")
    return fitting[0]


def _check_size(size: tuple[int, int], given: PictureParameters, filename: str) -> None:
    if given.image_size not in {None, size}:
        raise ConfigError(
            f"{filename}: image_size is {'x'.join(map(str, given.image_size or ()))}, but the model takes "
            f"{size[0]}x{size[1]}: leave it out"
        )


def _values(spec: TensorSpec, layout: Layout, given: PictureParameters, filename: str) -> Values:
    if spec.dtype == np.uint8:
        for key in ("scale", "mean", "std"):
            if key in given.written:
                raise ConfigError(
                    f"{filename}: {key} is for pictures of FP32 or FP16, but input {spec.name!r} is UINT8: leave it out"
                )
        return Values(layout)
    if given.scale is None:
        raise ConfigError(
            f"{filename}: input {spec.name!r} is {NAME_BY_DTYPE[spec.dtype]}: write the parameter 'scale', by which "
            "pixels of 0 to 255 are multiplied: 1/255 for a model that takes 0 to 1, 1 for one that takes 0 to 255"
        )
    dtype = cast("Dtype", str(spec.dtype))
    return Values(layout, dtype, given.mean or (0.0,), given.std or (1.0,), given.scale)


def _constants(specs: EngineSpecs, picture: int, size: tuple[int, int], filename: str) -> tuple[tuple[int, bytes], ...]:
    constants = []
    for index, spec in enumerate(specs.inputs):
        if index == picture:
            continue
        if math.prod(spec.shape) != 2 or spec.dtype.kind not in "iuf":
            raise ConfigError(
                f"{filename}: input {spec.name!r} must be two numbers, the width and the height; the model takes "
                f"{_listed([spec])}: leave the picture parameters out"
            )
        constants.append((index, np.array(size, spec.dtype).tobytes()))
    return tuple(constants)


def _check(picture: PictureInput, channels: int, given: PictureParameters, filename: str) -> None:
    if picture.channels != channels:
        wanted = "GRAY" if channels == 1 else "RGB or BGR"
        raise ConfigError(
            f"{filename}: color_order is {picture.color_order}, but the model takes {channels} "
            f"channel{'s' * (channels > 1)}: write {wanted}"
        )
    if given.resize_to is not None and picture.resize != "center_crop":
        raise ConfigError(f"{filename}: resize_to is for resize center_crop, not {picture.resize}: leave it out")
    if given.interpolation is not None and picture.resize == "crop_pad":
        raise ConfigError(f"{filename}: interpolation is not for resize crop_pad, which resizes nothing: leave it out")
    if picture.resize == "stretch":
        for key in sorted({"pad_value", "pad_at"} & set(given.written)):
            raise ConfigError(f"{filename}: {key} is for resize letterbox or crop_pad, not stretch: leave it out")
    for key in ("mean", "std"):
        if len(getattr(picture.values, key)) not in {1, channels}:
            raise ConfigError(f"{filename}: {key} has three numbers, but the model takes one channel: write one")


def _listed(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{spec.name!r} {NAME_BY_DTYPE[spec.dtype]} {list(spec.shape)}" for spec in specs)

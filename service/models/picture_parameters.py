"""The keys among the `parameters` of a configuration that say how frames become the model's picture.

    key          values                                           default
    color_order  RGB, BGR, GRAY                                   RGB, GRAY for a model with one channel
    layout       NHWC, NCHW                                       from the shape of the input
    image_size   WIDTHxHEIGHT, or one number for a square         from the shape of the input
    resize       stretch, letterbox, center_crop, crop_pad        stretch
    resize_to    pixels, of center_crop: the shorter side before  the smallest that covers the picture
    interpolation  opencv, bilinear, bicubic                      bilinear for center_crop, else opencv
    pad_value    0..255                                           114
    pad_at       center, bottom_right                             center
    scale        a number such as 1/255                           must be given for FP32 and FP16
    mean         a number, or one for each channel                0
    std          a number, or one for each channel                1
    jpeg         exact, fast                                      exact
    gpu_decode_pixels  0 or more                                  2088960, which is 1920x1088
    fold         auto, on, off                                    auto

Values are `(pixel * scale - mean) / std` with pixels from 0 to 255. `image_size` also fixes the height and the width of
a model whose file leaves them open. `fold` says whether the normalisation goes into the model's graph. A GPU decodes
JPEG files of up to `gpu_decode_pixels` pixels, and 0 is for none; the CPU decodes larger ones.
"""

from dataclasses import dataclass, fields
from typing import Literal, cast, get_args

from forebay_server.service.models.parameter_reader import ParameterReader
from forebay_server.service.pictures.picture_input import (
    ColorOrder,
    Interpolation,
    JpegScale,
    Layout,
    PadAt,
    Resize,
)

FoldChoice = Literal["auto", "on", "off"]

MAX_SIDE_PIXELS = 65535


@dataclass(frozen=True, slots=True)
class PictureParameters:
    """The keys of one configuration; None where not given. See the module."""

    color_order: ColorOrder | None = None
    layout: Layout | None = None
    image_size: tuple[int, int] | None = None
    resize: Resize | None = None
    resize_to: int | None = None
    interpolation: Interpolation | None = None
    pad_value: int | None = None
    pad_at: PadAt | None = None
    scale: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    jpeg: JpegScale | None = None
    fold: FoldChoice | None = None
    gpu_decode_pixels: int | None = None

    @property
    def written(self) -> tuple[str, ...]:
        """Names of the keys that are given."""
        return tuple(key for key in PICTURE_KEYS if getattr(self, key) is not None)


PICTURE_KEYS = tuple(field.name for field in fields(PictureParameters))


def read_picture_parameters(reader: ParameterReader) -> PictureParameters:
    """Check the keys for pictures. Raises ConfigError: a value out of range, or keys that contradict each other."""
    scale = reader.numbers("scale", (1,), is_nonzero=True)
    return PictureParameters(
        color_order=cast("ColorOrder | None", reader.choice("color_order", get_args(ColorOrder))),
        layout=cast("Layout | None", reader.choice("layout", get_args(Layout))),
        image_size=reader.size("image_size", MAX_SIDE_PIXELS),
        resize=cast("Resize | None", reader.choice("resize", get_args(Resize))),
        resize_to=reader.whole("resize_to", 1, MAX_SIDE_PIXELS),
        interpolation=cast("Interpolation | None", reader.choice("interpolation", get_args(Interpolation))),
        pad_value=reader.whole("pad_value", 0, 255),
        pad_at=cast("PadAt | None", reader.choice("pad_at", get_args(PadAt))),
        scale=None if scale is None else scale[0],
        mean=reader.numbers("mean", (1, 3)),
        std=reader.numbers("std", (1, 3), is_nonzero=True),
        jpeg=cast("JpegScale | None", reader.choice("jpeg", get_args(JpegScale))),
        fold=cast("FoldChoice | None", reader.choice("fold", get_args(FoldChoice))),
        gpu_decode_pixels=reader.whole("gpu_decode_pixels", 0, MAX_SIDE_PIXELS**2),
    )

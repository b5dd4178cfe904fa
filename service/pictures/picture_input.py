"""The picture that a model takes: its size, colours and values, and how a frame is brought to that size.

Values only, at the bottom of the service: decoding writes such pictures, and results lead their boxes back to the
frame. `service.pictures.geometry` says where the pixels of a frame lie in it. Thread: any (immutable).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

ColorOrder = Literal["RGB", "BGR", "GRAY"]
Resize = Literal["stretch", "letterbox", "center_crop", "crop_pad"]
Interpolation = Literal["opencv", "bilinear", "bicubic"]
PadAt = Literal["center", "bottom_right"]
Layout = Literal["NHWC", "NCHW"]
Dtype = Literal["uint8", "float16", "float32"]
JpegScale = Literal["exact", "fast"]

PAD_VALUE = 114  # the grey that YOLO models are trained with
DEVICE_PIXELS = 1920 * 1088
"""Default for the largest JPEG that a device decodes: it has memory for whole batches of them."""


@dataclass(frozen=True, slots=True)
class Values:
    """The numbers that a pixel becomes: `(pixel * scale - mean) / std`, pixels from 0 to 255.

    Attributes:
        layout: channels last or first.
        dtype: uint8 leaves pixels as they are; mean, std and scale must then be 0, 1 and 1.
        mean: one number for all channels, or one for each in the order of the model's channels.
        std: as for mean, none of them 0.
        scale: often 1 or 1/255.
    """

    layout: Layout = "NHWC"
    dtype: Dtype = "uint8"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    scale: float = 1.0

    @property
    def is_pixels(self) -> bool:
        """Whether values are the pixels themselves, in any type."""
        return self.scale == 1.0 and not any(self.mean) and all(each == 1.0 for each in self.std)


@dataclass(frozen=True, slots=True)
class PictureInput:
    """The input of a model that takes pictures.

    Attributes:
        width: pixels.
        height: pixels.
        color_order: order of the channels in memory; GRAY is one channel.
        resize: *stretch* changes both sides to the model's; *letterbox* keeps the ratio of the sides and pads the rest;
            *center_crop* keeps the ratio and cuts the rest; *crop_pad* leaves the pixels as they are, and cuts
            or pads each side.
        pad_value: of padded pixels, all channels, 0..255, before normalisation.
        pad_at: *center* pads half on each side, *bottom_right* only there.
        resize_to: length in pixels of the frame's shorter side before the cut, of center_crop alone; None for the
            smallest that covers the model's picture.
        interpolation: *opencv* is OpenCV's bilinear one; *bilinear* and *bicubic* are Pillow's, which average where the
            frame gets smaller.
        values: layout and numbers.
        jpeg_scale: *exact* decodes a JPEG whole; *fast* decodes at the smallest of libjpeg's scales that is enough,
            which changes pixels by a few values and with them scores.
        device_pixels: most pixels of a JPEG that a device decodes, if it does; larger ones are the CPU's.
        input_index: of the picture among the model's inputs.
        constant_inputs: index and bytes of one row, for every other input.
    """

    width: int
    height: int
    color_order: ColorOrder
    resize: Resize = "stretch"
    pad_value: int = PAD_VALUE
    pad_at: PadAt = "center"
    resize_to: int | None = None
    interpolation: Interpolation = "opencv"
    values: Values = Values()
    jpeg_scale: JpegScale = "exact"
    device_pixels: int = DEVICE_PIXELS
    input_index: int = 0
    constant_inputs: tuple[tuple[int, bytes], ...] = ()

    @property
    def channels(self) -> int:
        """1 or 3."""
        return 1 if self.color_order == "GRAY" else 3

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one row, in the order of its layout."""
        if self.values.layout == "NCHW":
            return self.channels, self.height, self.width
        return self.height, self.width, self.channels

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Of one value."""
        return np.dtype(self.values.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of one row."""
        return self.width * self.height * self.channels * self.dtype.itemsize

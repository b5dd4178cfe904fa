"""Pixels to the numbers that a model takes, written once, in one pass, to where the model reads them.

A pixel has 256 values, so a table of 256 numbers for each channel is the whole normalisation: the numbers are computed
once in double precision, and writing them is one look-up for each value, for FP16 as for FP32. Pure functions. OpenCV
releases the GIL while it works.
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from forebay_server.service.errors import InvariantError
from forebay_server.service.pictures.picture_input import Values
from forebay_server.service.pictures.value_table import table_of

Pixels = NDArray[np.uint8]
_WORDS: dict[int, np.dtype[Any]] = {2: np.dtype(np.int16), 4: np.dtype(np.float32)}
"""Bytes of a value -> the type as which OpenCV moves it: its look-up copies bytes and knows no FP16."""


def write_values(target: NDArray[Any], pixels: Pixels, values: Values, *, is_swapped: bool = False) -> None:
    """Write the numbers of pixels.

    Args:
        target: shape (height, width, channels) or (channels, height, width) as `values.layout` says, and its type;
            lines may have a distance; written.
        pixels: shape (height, width, channels) or, for one channel, (height, width); borrowed.
        values: of the model.
        is_swapped: whether the first and the last channel of `pixels` are in the other order than those of the model.
    """
    if values.layout == "NHWC" and pixels.ndim == 3:
        _write_interleaved(target, cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if is_swapped else pixels, values)  # type: ignore[arg-type]
        return
    planes = (pixels,) if pixels.ndim == 2 else cv2.split(pixels)
    table = table_of(values, len(planes))
    for channel, plane in enumerate(reversed(planes) if is_swapped else planes):
        part = target[channel] if values.layout == "NCHW" else target[..., 0]
        _look_up(plane, table[channel], part)  # type: ignore[arg-type]


def pad(target: NDArray[Any], inner: tuple[slice, slice], values: Values, pad_value: int) -> None:
    """Write the number of a padded pixel to everything of `target` outside of the lines and columns of `inner`."""
    rows, columns = inner
    channels_last = target if values.layout == "NHWC" else target.transpose(1, 2, 0)
    numbers = table_of(values, channels_last.shape[2])[:, pad_value]
    if np.all(numbers == numbers[0]):
        line = numbers[:1]
    elif values.layout == "NHWC":
        line = np.tile(
            numbers, (target.shape[1], 1)
        )  # numpy copies whole lines: 3 numbers at a time take 20 times as long
    else:
        line = np.broadcast_to(numbers, (target.shape[2], numbers.size))
    for part in (
        channels_last[: rows.start],
        channels_last[rows.stop :],
        channels_last[rows, : columns.start],
        channels_last[rows, columns.stop :],
    ):
        if part.size:
            part[...] = line[: part.shape[1]]


def _write_interleaved(target: NDArray[Any], pixels: Pixels, values: Values) -> None:
    if values.dtype == "uint8":
        np.copyto(target, pixels)
        return
    channels = pixels.shape[2]
    table = table_of(values, channels)
    is_one = bool(np.all(table == table[0]))
    _look_up(pixels, table[0] if is_one else table.T, target)


def _look_up(pixels: Pixels, table: NDArray[Any], target: NDArray[Any]) -> None:
    """Write `table[pixels]` to `target`."""
    if target.dtype == np.uint8:
        np.copyto(target, pixels)
        return
    words = _WORDS[target.itemsize]
    entries = np.ascontiguousarray(table).view(words)
    into = target.view(words)
    entries = entries.reshape(1, 256) if entries.ndim == 1 else entries.reshape(1, 256, -1)
    if cv2.LUT(pixels, entries, dst=into).ctypes.data != into.ctypes.data:
        raise InvariantError("OpenCV wrote a picture's values elsewhere than into the frame's buffer")

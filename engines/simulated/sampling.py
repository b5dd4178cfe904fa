"""The arithmetic of `engines.cuda.picture_kernel` in numpy: whole pictures at once, the same whole numbers. Pure."""

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from forebay_server.engines.pictures import Filter, Nv12Planes, PictureForm, PictureRow, matrix_of

Pixels = NDArray[np.uint8]
_GREY = np.array((9798, 19235, 3735), np.int64)  # shares of 2**15, as OpenCV's


def picture_of(row: PictureRow, form: PictureForm, pixels: Pixels) -> NDArray[Any]:
    """Return one row of the model's input.

    Args:
        row: where the picture goes, and how it is resized.
        form: of the model.
        pixels: shape (height, width, 3), red first; see `converted` for planes.

    Returns:
        of the form's type, shape (height, width, channels) or (channels, height, width).
    """
    resized = _resized(pixels, row)
    colours = np.full((form.height, form.width, 3), form.pad_value, np.int64)
    width, height = row.resized
    top, left = max(0, row.top), max(0, row.left)
    bottom, right = min(form.height, row.top + height), min(form.width, row.left + width)
    seen = resized[top - row.top : bottom - row.top, left - row.left : right - row.left].astype(np.int64)
    if form.color_order == "GRAY":
        colours = colours[..., :1]
        seen = ((seen @ _GREY + (1 << 14)) >> 15)[..., None]
    colours[top:bottom, left:right] = seen[..., ::-1] if form.color_order == "BGR" else seen
    values = np.stack([form.table[channel][colours[..., channel]] for channel in range(form.channels)], axis=-1)
    return np.ascontiguousarray(values.transpose(2, 0, 1)) if form.layout == "NCHW" else values


def converted(row: PictureRow, source: Nv12Planes, luma: Pixels, chroma: Pixels) -> tuple[PictureRow, Pixels]:
    """Return the colours of planes, at the size at which the kernel makes them, and the row with the rest of the way.

    Args:
        row: of the picture.
        source: the picture.
        luma: shape (height, width).
        chroma: shape (half the height, half the width, 2).
    """
    size = row.resized if row.filter is Filter.LINEAR else source.size
    planes = [_linear(plane, size) for plane in (luma, chroma[..., 0], chroma[..., 1])]
    samples = np.stack([*planes, np.ones_like(planes[0])], axis=-1).astype(np.float32)
    rows = matrix_of(source.shares, is_full_range=source.is_full_range)
    # One product after the other, as the kernel adds them.
    sums = [
        samples[..., 0] * each[0] + samples[..., 1] * each[1] + samples[..., 2] * each[2] + each[3] for each in rows
    ]
    return row, _as_bytes(np.rint(np.stack(sums, axis=-1)))


def _resized(pixels: Pixels, row: PictureRow) -> Pixels:
    if (pixels.shape[1], pixels.shape[0]) == row.resized:
        return pixels
    if row.filter is Filter.LINEAR:
        return np.stack([_linear(pixels[..., channel], row.resized) for channel in range(3)], axis=-1)
    is_cubic = row.filter is Filter.ANTIALIASED_CUBIC
    across = _weights(pixels.shape[1], row.resized[0], is_cubic=is_cubic)
    down = _weights(pixels.shape[0], row.resized[1], is_cubic=is_cubic)
    narrow = _weighted(across, pixels.transpose(1, 0, 2)).transpose(1, 0, 2)
    return _weighted(down, narrow)


def _linear(plane: Pixels, size: tuple[int, int]) -> Pixels:
    samples = plane.astype(np.int64)
    first, second, weight, second_weight = _axis(plane.shape[1], size[0])
    lines = samples[:, first] * weight + samples[:, second] * second_weight
    first, second, weight, second_weight = _axis(plane.shape[0], size[1])
    above = (weight[:, None] * (lines[first] >> 4)) >> 16
    below = (second_weight[:, None] * (lines[second] >> 4)) >> 16
    return _as_bytes((above + below + 2) >> 2)


def _axis(length: int, resized: int) -> tuple[NDArray[np.int64], ...]:
    """For each pixel of one axis the two source pixels and their weights, of 2048."""
    place = ((np.arange(resized) + 0.5) * (length / resized) - 0.5).astype(np.float32)
    first = np.floor(place).astype(np.int64)
    share = place - first.astype(np.float32)
    share[(first < 0) | (first >= length - 1)] = 0.0
    first = np.clip(first, 0, length - 1)
    weights = (np.rint((np.float32(1) - share) * 2048), np.rint(share * 2048))
    return first, np.minimum(first + 1, length - 1), *(each.astype(np.int64) for each in weights)


def _weights(length: int, resized: int, *, is_cubic: bool) -> NDArray[np.int64]:
    """Weights of every source pixel for each pixel of one axis, shape (resized, length), of 2**22."""
    scale = length / resized
    widened = max(scale, 1.0)
    reach = widened * (2.0 if is_cubic else 1.0)
    centers = ((np.arange(resized) + 0.5) * scale)[:, None]
    sources = np.arange(length)[None, :]
    x = np.abs(sources - centers + 0.5) / widened
    if is_cubic:
        far = np.where(x < 2.0, (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5, 0.0)
        weights = np.where(x < 1.0, (1.5 * x - 2.5) * x * x + 1.0, far)
    else:
        weights = np.where(x < 1.0, 1.0 - x, 0.0)
    first = np.maximum((centers - reach + 0.5).astype(np.int64), 0)
    last = np.minimum((centers + reach + 0.5).astype(np.int64), length)
    weights[(sources < first) | (sources >= last)] = 0.0
    weights /= weights.cumsum(axis=1)[:, -1:]
    whole: NDArray[np.int64] = np.trunc(weights * (1 << 22) + np.where(weights < 0, -0.5, 0.5)).astype(np.int64)
    return whole


def _weighted(weights: NDArray[np.int64], lines: Pixels) -> Pixels:
    sums = np.tensordot(weights, lines.astype(np.int64), axes=1) + (1 << 21)
    return _as_bytes(sums >> 22)


def _as_bytes(numbers: NDArray[Any]) -> Pixels:
    return cast("Pixels", np.clip(numbers, 0, 255).astype(np.uint8))

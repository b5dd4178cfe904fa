"""A frame in another size as Pillow makes it, bit for bit: each pixel is an average where the frame gets smaller.

Classifiers are trained and judged with torchvision's `Resize`, which is Pillow's; OpenCV has no such filter. A pixel of
the result is a weighted sum of those whose centers are nearer than one pixel of the larger grid (bicubic: two), along
one axis, rounded to a byte, and then along the other. Weights are whole numbers of 22 bits, as in Pillow, so that sums
are exact. The axis that goes first changes some bytes by one; it is that of Pillow 13 (earlier ones always began with
the horizontal one), found by resizing noise to a grid of sizes.

Each pass works on whole lines, the horizontal one on those of the transposed frame, and only on lines that the result
shows. Milliseconds of CPU on an EPYC, to the middle 224x224: 1280x720 7.8 (Pillow 7.6), 1920x1080 8.9 (Pillow 15.2).
numpy and OpenCV release the GIL while they work. Pure functions.
"""

import functools
import math
from typing import Any, Literal, cast

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Filter = Literal["bilinear", "bicubic"]

WEIGHT_BITS = 22
CUBIC = -0.5  # the parameter of Pillow's bicubic filter; OpenCV's is -0.75
BLOCK = 16  # lines of the result made at once: their source lines then stay in the caches


def resize_antialiased(
    source: Pixels, size: tuple[int, int], rows: slice, columns: slice, how: Filter = "bilinear"
) -> Pixels:
    """Return a part of the resized frame, a fresh array, C-contiguous.

    Args:
        source: shape (height, width) or (height, width, channels); borrowed.
        size: (width, height) of the whole resized frame.
        rows: of the result that are wanted, with a start and a stop within it.
        columns: as rows.
        how: the filter.
    """
    height, width = source.shape[:2]
    across = _filter(width, size[0], columns.start, columns.stop, how)
    down = _filter(height, size[1], rows.start, rows.stop, how)
    seen = source[down[0], across[0]]
    if _begins_vertically((width, height), size):
        return _transposed(_weighted(_transposed(_weighted(seen, *down[1:])), *across[1:]))
    narrow = _transposed(_weighted(_transposed(seen), *across[1:]))
    return _weighted(narrow, *down[1:])


def _begins_vertically(source: tuple[int, int], size: tuple[int, int]) -> bool:
    """Return whether the frame loses more than twice as many lines as columns. Both are (width, height)."""
    return source[1] - size[1] > 2 * max(0, source[0] - size[0])


def _transposed(pixels: Pixels) -> Pixels:
    return cast("Pixels", cv2.transpose(pixels))


def _weighted(lines: Pixels, sources: NDArray[np.intp], weights: NDArray[np.int32]) -> Pixels:
    """Sums of lines [n, ...], one for each row of `sources` and `weights` [m, taps]."""
    flat = lines.reshape(len(lines), -1)
    made = np.empty((len(sources), flat.shape[1]), np.uint8)
    for start in range(0, len(sources), BLOCK):
        block = slice(start, start + BLOCK)
        sums = np.einsum("mt,mtp->mp", weights[block], flat[sources[block]].astype(np.int32))
        sums += 1 << (WEIGHT_BITS - 1)
        sums >>= WEIGHT_BITS
        made[block] = np.clip(sums, 0, 255, out=sums)  # bicubic weights may be negative
    return made.reshape(len(sources), *lines.shape[1:])


@functools.lru_cache(maxsize=64)
def _filter(
    length: int, wanted: int, start: int, stop: int, how: Filter
) -> tuple[slice, NDArray[Any], NDArray[np.int32]]:
    """On one axis: the source pixels that are needed, and of each wanted one the sources among these and their weights.

    Args:
        length: of the source in pixels.
        wanted: length of the whole result.
        start: first pixel of it that is made.
        stop: behind the last.
        how: the filter.
    """
    scale = length / wanted
    widened = max(scale, 1.0)
    reach = widened * (1.0 if how == "bilinear" else 2.0)
    centers = (np.arange(start, stop) + 0.5) * scale
    first = np.maximum((centers - reach + 0.5).astype(np.intp), 0)
    last = np.minimum((centers + reach + 0.5).astype(np.intp), length)
    sources = first[:, None] + np.arange(math.ceil(reach) * 2 + 1)
    distances = np.abs((sources - centers[:, None] + 0.5) * (1.0 / widened))
    weights = np.maximum(0.0, 1.0 - distances) if how == "bilinear" else _bicubic(distances)
    weights[sources >= last[:, None]] = 0.0
    weights /= weights.cumsum(axis=1)[:, -1:]  # one after the other, as Pillow adds: `sum` rounds otherwise
    fixed = np.trunc(weights * (1 << WEIGHT_BITS) + np.copysign(0.5, weights)).astype(np.int32)
    needed = slice(int(first[0]), int(last[-1]))
    sources = np.minimum(sources, needed.stop - 1) - needed.start
    return needed, sources, fixed


def _bicubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    near = ((CUBIC + 2.0) * x - (CUBIC + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * CUBIC
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))

"""The encodings of a frame: their words, their values on the wire, and the layout of uncompressed pixels.

The client, the server and the load tester all read these two tables. Values only. Thread: any (immutable).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import cast

from forebay.wire import frames_pb2 as wire


@dataclass(frozen=True, slots=True)
class Layout:
    """The bytes of an uncompressed picture, as the C-contiguous array of uint8 that holds them.

    Attributes:
        channels: bytes of one pixel side by side, the array's third dimension; 1: the array has two dimensions.
        block: width and height in pixels of the smallest piece, 1 or 2 each; a picture has whole pieces only.
        rows: rows of the array for each block of height.
    """

    channels: int
    block: tuple[int, int] = (1, 1)
    rows: int = 1

    def shape(self, width: int, height: int) -> tuple[int, ...]:
        """Return the array's shape for a picture of this size, in pixels."""
        rows = height // self.block[1] * self.rows
        return (rows, width) if self.channels == 1 else (rows, width, self.channels)

    def nbytes(self, width: int, height: int) -> int:
        """Return the payload's size for a picture of this size, in pixels."""
        return height // self.block[1] * self.rows * width * self.channels

    def size(self, shape: tuple[int, ...]) -> tuple[int, int] | None:
        """Return width and height of the picture that an array of this shape holds; None if it holds none."""
        if len(shape) < 2 or shape[0] % self.rows:
            return None
        width, height = shape[1], shape[0] // self.rows * self.block[1]
        return (width, height) if self.shape(width, height) == shape else None

    def fault(self, width: int, height: int) -> str:
        """Return why no picture of this layout has this size, to follow its name; empty if one has."""
        if not (width % self.block[0] or height % self.block[1]):
            return ""
        steps = zip(("width", "height"), self.block, strict=True)
        sides = " and ".join(f"an even {side}" for side, step in steps if step == 2)
        return f"needs {sides}, not {width}x{height}"

    def __str__(self) -> str:
        """Return the array's shape in words."""
        rows = "height" if self.rows == self.block[1] else f"height * {self.rows} / {self.block[1]}"
        return f"({rows}, width)" if self.channels == 1 else f"({rows}, width, {self.channels})"


LAYOUTS: Mapping[int, Layout] = MappingProxyType(
    {
        wire.ENCODING_RGB8: Layout(channels=3),
        wire.ENCODING_BGR8: Layout(channels=3),
        wire.ENCODING_NV12: Layout(channels=1, block=(2, 2), rows=3),
        wire.ENCODING_MONO8: Layout(channels=1),
    }
)
"""Encoding -> layout of its pixels. An encoding that is missing here is a file (JPEG, PNG) or TENSOR."""

VALUES: Mapping[str, wire.Encoding] = MappingProxyType(
    {
        name.removeprefix("ENCODING_").lower(): cast("wire.Encoding", value)
        for name, value in wire.Encoding.items()
        if value != wire.ENCODING_UNSPECIFIED
    }
)
"""Word of an encoding -> its value on the wire."""

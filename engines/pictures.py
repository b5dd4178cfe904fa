"""Pictures that a device itself brings to a model's input: files that it decodes, and planes in its memory.

The contract of `Device.open_pictures`. Implementations: `engines.cuda.pictures`, and `engines.simulated.pictures`,
which checks the order of every access.

A device writes the same numbers as `service.frontend.frames.decode`, up to rounding: a pixel is sampled and rounded to
a byte first, and the byte is then looked up in `PictureForm.table`.

Thread: values are immutable. A writer is used by one thread at a time, the one that uses its device stream.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from forebay_server.engines.device import DeviceBuffer, Event, HostBuffer


class Filter(enum.IntEnum):
    """How a pixel of another size is sampled. The numbers are those of the kernel."""

    LINEAR = 0  # between the four nearest ones, as OpenCV does
    ANTIALIASED_LINEAR = 1  # as Pillow does
    ANTIALIASED_CUBIC = 2


@dataclass(frozen=True, slots=True, eq=False)
class PictureForm:
    """The picture that a model takes.

    Attributes:
        width: pixels.
        height: pixels.
        color_order: of the channels; GRAY is one.
        layout: channels last or first.
        table: shape (channels, 256): the number of each pixel value, of the input's type (1, 2 or 4 bytes).
        pad_value: pixel value outside of the picture.
    """

    width: int
    height: int
    color_order: Literal["RGB", "BGR", "GRAY"]
    layout: Literal["NHWC", "NCHW"]
    table: NDArray[Any]
    pad_value: int

    @property
    def channels(self) -> int:
        """1 or 3."""
        return len(self.table)

    @property
    def row_bytes(self) -> int:
        """Of one picture."""
        return self.width * self.height * self.channels * int(self.table.itemsize)


@dataclass(frozen=True, slots=True)
class PictureLimits:
    """Sizes of the memory that is allocated at start.

    Attributes:
        rows: most pictures of one call.
        slots: slots whose calls may be under way at once.
        file_pixels: most pixels of a file; 0 if there are no files.
    """

    rows: int
    slots: int
    file_pixels: int


@dataclass(frozen=True, slots=True)
class PictureSupport:
    """The pictures that a device takes.

    Attributes:
        planes: whether it converts planes in its memory.
        files: whether it decodes JPEG files.
        reason: why not, with a remedy; empty if it does both.
    """

    planes: bool
    files: bool
    reason: str = ""


NO_SUPPORT = PictureSupport(planes=False, files=False)


@dataclass(frozen=True, slots=True)
class JpegFile:
    """A whole JPEG file of 8 bits, baseline, one scan, grey or YCbCr.

    Attributes:
        host: memory that the device may read until the picture is written.
        offset: of the file in it.
        nbytes: of the file.
        size: (width, height) in pixels, from its header.
    """

    host: HostBuffer
    offset: int
    nbytes: int
    size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Nv12Planes:
    """A decoded picture in device memory: rows of luma, and rows of chroma of half the size, U before V.

    Attributes:
        buffer: of the same device; not written until the picture is written.
        luma_offset: of the first sample of luma.
        chroma_offset: of the first sample of chroma.
        pitch: bytes from one line to the next, of luma and of chroma.
        size: (width, height) in pixels of luma; chroma has half of each, rounded up.
        shares: of red and of blue in luma: (0.299, 0.114) for BT.601, (0.2126, 0.0722) for BT.709.
        is_full_range: whether luma is 0 to 255 and not 16 to 235.
        ready: recorded when the planes are complete; None if they were when the call is made.
    """

    buffer: DeviceBuffer
    luma_offset: int
    chroma_offset: int
    pitch: int
    size: tuple[int, int]
    shares: tuple[float, float]
    is_full_range: bool
    ready: Event | None = None


PictureSource: TypeAlias = JpegFile | Nv12Planes


@dataclass(frozen=True, slots=True)
class PictureRow:
    """One picture and where it goes.

    Attributes:
        row: of the target.
        source: the picture.
        resized: (width, height) of the whole picture in the model's pixels.
        left: the model's pixels before it; negative where it is cut.
        top: the model's pixels above it; negative where it is cut.
        filter: how it is resized.
    """

    row: int
    source: PictureSource
    resized: tuple[int, int]
    left: int
    top: int
    filter: Filter


class PictureWriter(Protocol):
    """Writes pictures into the rows of one model's input, on one device stream."""

    def write(self, pictures: Sequence[PictureRow], target: DeviceBuffer, slot: int) -> Sequence[PictureRow]:
        """Enqueue the pictures of one slot on the writer's device stream.

        The stream waits for every `Nv12Planes.ready`. The caller's order makes sure that the slot's earlier call is
        done. A row whose picture is written is written whole, padding included.

        Args:
            pictures: at most `PictureLimits.rows`, of different rows.
            target: of at least as many rows as the largest one names.
            slot: below `PictureLimits.slots`.

        Returns:
            The files that the device refuses. Their rows hold anything; the caller writes them in another way.

        Raises:
            EngineError: nothing is known of any row.

        Blocks: while files are parsed, and while more rounds of them are under way than the device has room for.
        """
        ...

    def close(self) -> None:
        """Free everything, after the device stream is idle. Idempotent."""
        ...


def matrix_of(shares: tuple[float, float], *, is_full_range: bool) -> NDArray[np.float32]:
    """Return the matrix from (Y, U, V, 1), samples 0..255, to red, green and blue: shape (3, 4)."""
    red, blue = shares
    green = 1 - red - blue
    scale, offset, span = (1.0, 0.0, 255.0) if is_full_range else (255 / 219, 16.0, 224.0)
    v_of_red, u_of_blue = 2 * (1 - red) * 255 / span, 2 * (1 - blue) * 255 / span
    rows = (
        (scale, 0.0, v_of_red),
        (scale, -u_of_blue * blue / green, -v_of_red * red / green),
        (scale, u_of_blue, 0.0),
    )
    return np.array([[*row, -offset * scale - 128 * (row[1] + row[2])] for row in rows], np.float32)

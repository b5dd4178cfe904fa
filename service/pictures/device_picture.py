"""Pictures that a request brings as they came, and that the device of its batch decodes or converts: the seam.

Theory of operation
    A request has its inputs in the rows of its frame buffer (`Request.picture` is None), or a picture for the device.
    A file lies in the frame buffer itself, at the place that `FilePlace` names, so that it crosses to an engine
    process as rows do. Planes lie in memory of the device, and a decoder put them there: its frame buffer's `release`
    gives them back. In both cases the other inputs of the model, which are constants, lie in the frame buffer.

    The upload stage has the device write the picture into the request's row of the slot, between the copies of the
    batch and `uploaded`. The frame buffer is released once the batch was executed, as always: until then a file must
    not be overwritten, nor planes.

    A batch may mix rows, files and planes.

Values and pure functions. Thread: any.
"""

import enum
from dataclasses import dataclass
from typing import TypeAlias

from forebay_server.engines.pictures import Nv12Planes

ALIGNMENT_BYTES = 64
LEAST_FILE_BYTES = 384 << 10
"""Room for a file of every frame, where the picture's own row has less: 640x480 of high quality are 100 to 250 KB."""


@dataclass(frozen=True, slots=True)
class FilePlace:
    """Where a frame buffer has room for a file, and which files the device takes.

    Attributes:
        offset: of the file.
        nbytes: most bytes of a file.
        most_pixels: of a file.
    """

    offset: int
    nbytes: int
    most_pixels: int

    @property
    def end(self) -> int:
        """Bytes that a frame buffer has to have."""
        return self.offset + self.nbytes


@dataclass(frozen=True, slots=True)
class FilePicture:
    """A JPEG file in the request's frame buffer.

    Attributes:
        offset: of the file in the buffer.
        nbytes: of the file.
        size: (width, height) in pixels.
    """

    offset: int
    nbytes: int
    size: tuple[int, int]


DevicePicture: TypeAlias = FilePicture | Nv12Planes


class DecodedBy(enum.StrEnum):
    """Who decoded a JPEG for a model whose devices do, and why the CPU: labels of a metric."""

    DEVICE = "device"
    HOST_HEADER = "host_header"  # not baseline, 8 bits, grey or YCbCr, in one scan, with a header as in the standard
    HOST_PIXELS = "host_pixels"  # too many
    HOST_BYTES = "host_bytes"  # the file does not fit into a frame buffer
    HOST_END = "host_end"  # its end is missing, or not where it should be
    HOST_REFUSED = "host_refused"  # by the device, beside its count as DEVICE


def file_place(offsets: tuple[int, ...], row_bytes: tuple[int, ...], picture_index: int, most_pixels: int) -> FilePlace:
    """Return the room for files in frame buffers of one row: that of the picture, or, if it is small, behind all rows.

    Args:
        offsets: of each input in a frame buffer.
        row_bytes: of each input.
        picture_index: of the picture among the inputs.
        most_pixels: that the device decodes.
    """
    own = row_bytes[picture_index]
    if own >= LEAST_FILE_BYTES:
        return FilePlace(offsets[picture_index], own, most_pixels)
    end = max(offset + nbytes for offset, nbytes in zip(offsets, row_bytes, strict=True))
    return FilePlace(-(-end // ALIGNMENT_BYTES) * ALIGNMENT_BYTES, LEAST_FILE_BYTES, most_pixels)

"""PNG to pixels by OpenCV, whose libpng prints a line on standard error for every irregularity.

A client must not write into the operator's log, so libpng gets a file without irregularities: the header and the
palette, checked, and the pixels, inflated and checked here and stored again without compression. Ancillary chunks
(colour profiles, text, animation) do not change OpenCV's pixels, and are left out. ADR 0088 has the measurements.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from forebay_server.service.errors import InvalidRequestError
from forebay_server.service.frontend.frames.decode.image_size import check_size

Pixels = NDArray[np.uint8]
Buffer = bytes | memoryview

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_SIDE = 1_000_000  # libpng's own limit, beyond which it prints
_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION  # as sent, like JPEG
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of colour type: grey, RGB, palette, grey and alpha, RGB and alpha
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_PALETTE = 3
_WHOLE = ((0, 0, 1, 1),)
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row, and the steps from there, of each pass of an interlaced picture."""
_FILTERS = 5  # 0 to 4
_STORED_BYTES = 0xFFFF  # of one block without compression
_MOST_CHUNKS = 20_000  # each costs a microsecond of Python; encoders write 4 KB or more into one, 80 MB of this many

_NO_PNG = "payload is not a PNG file, or its header is broken"
_BROKEN = "PNG is truncated or broken; send the whole file"


@dataclass(frozen=True, slots=True)
class _Header:
    """IHDR.

    Attributes:
        size: (width, height) in pixels.
        depth: bits of a sample.
        colour: colour type.
        passes: of `_ADAM7` or `_WHOLE`.
    """

    size: tuple[int, int]
    depth: int
    colour: int
    passes: tuple[tuple[int, int, int, int], ...]

    def rows(self) -> Iterator[tuple[int, int]]:
        """Number of rows of each pass, and the bytes of one, its filter's number included."""
        width, height = self.size
        for column, row, step_x, step_y in self.passes:
            columns, rows = -(-(width - column) // step_x), -(-(height - row) // step_y)
            if columns > 0 and rows > 0:
                yield rows, 1 + (columns * _CHANNELS[self.colour] * self.depth + 7) // 8


def decode_png(file: memoryview, max_pixels: int) -> tuple[Pixels, tuple[int, int]]:
    """Decode a PNG file of any kind to three channels of 8 bits.

    Args:
        file: the whole file; borrowed.
        max_pixels: larger pictures are refused before they are decoded.

    Returns:
        shape (height, width, 3), uint8, BGR, a fresh array; and (width, height).

    Raises:
        InvalidRequestError: the file is not a PNG, or not a whole one.
    """
    header = _read_header(file, max_pixels)
    chunks = _critical_chunks(file)
    plain = np.frombuffer(_rewritten(header, chunks), np.uint8)
    pixels = cv2.imdecode(plain, _FLAGS)
    if pixels is None:
        raise InvalidRequestError(_BROKEN)
    return cast("Pixels", pixels), header.size


def _read_header(file: memoryview, max_pixels: int) -> _Header:
    if bytes(file[:8]) != SIGNATURE or len(file) < 33 or bytes(file[8:16]) != b"\0\0\0\x0dIHDR":
        raise InvalidRequestError(_NO_PNG)
    width, height, depth, colour, compression, filters, interlace = struct.unpack(">IIBBBBB", file[16:29])
    check_size("PNG", (width, height), max_pixels)
    is_known = depth in _DEPTHS.get(colour, ()) and (compression, filters) == (0, 0) and interlace in {0, 1}
    if not is_known or max(width, height) > MAX_SIDE:
        raise InvalidRequestError(_NO_PNG)
    return _Header((width, height), depth, colour, _ADAM7 if interlace else _WHOLE)


def _critical_chunks(file: memoryview) -> dict[bytes, list[memoryview]]:
    """The content of all IDAT chunks and of PLTE. Every chunk up to IEND must be present with its checksum."""
    found: dict[bytes, list[memoryview]] = {b"PLTE": [], b"IDAT": []}
    start = len(SIGNATURE)
    for _ in range(_MOST_CHUNKS):
        if start + 12 > len(file):
            raise InvalidRequestError(_BROKEN)
        (length,) = struct.unpack_from(">I", file, start)
        end = start + 8 + length
        if end + 4 > len(file) or zlib.crc32(file[start + 4 : end]) != struct.unpack_from(">I", file, end)[0]:
            raise InvalidRequestError(_BROKEN)
        kind = bytes(file[start + 4 : start + 8])
        if kind == b"IEND":
            return found
        if kind in found:
            found[kind].append(file[start + 8 : end])
        start = end + 4
    raise InvalidRequestError(f"PNG has more than {_MOST_CHUNKS} chunks; send it without metadata")


def _rewritten(header: _Header, chunks: dict[bytes, list[memoryview]]) -> bytes:
    """The same picture as a file that libpng reads without output."""
    width, height = header.size
    ihdr = struct.pack(
        ">IIBBBBB", width, height, header.depth, header.colour, 0, 0, 1 if header.passes is _ADAM7 else 0
    )
    parts: list[Buffer] = [SIGNATURE, *_chunk(b"IHDR", [ihdr])]
    if header.colour == _PALETTE:
        parts += _chunk(b"PLTE", [_whole_palette(header, chunks[b"PLTE"])])
    parts += _chunk(b"IDAT", _stored(_inflated(header, chunks[b"IDAT"])))
    parts += _chunk(b"IEND", [])
    return b"".join(parts)  # the only copy: there are 400 MB of pixels in the largest pictures


def _stored(data: bytes) -> list[Buffer]:
    """`data` as a zlib stream without compression (RFC 1950, 1951); zlib takes three times as long at level 0."""
    parts: list[Buffer] = [b"\x78\x01"]
    for start in range(0, len(data), _STORED_BYTES):
        block = memoryview(data)[start : start + _STORED_BYTES]
        is_last = start + len(block) == len(data)
        parts += (struct.pack("<BHH", is_last, len(block), len(block) ^ 0xFFFF), block)
    return [*parts, struct.pack(">I", zlib.adler32(data))]


def _chunk(kind: bytes, content: Sequence[Buffer]) -> list[Buffer]:
    checksum = zlib.crc32(kind)
    for part in content:
        checksum = zlib.crc32(part, checksum)
    return [struct.pack(">I", sum(map(len, content))), kind, *content, struct.pack(">I", checksum)]


def _whole_palette(header: _Header, found: list[memoryview]) -> bytes:
    """The palette, black where it has no entry for an index that a pixel may have."""
    entries = 3 * (1 << header.depth)
    if len(found) != 1 or not found[0] or len(found[0]) % 3 or len(found[0]) > entries:
        raise InvalidRequestError(_BROKEN)
    return bytes(found[0]).ljust(entries, b"\0")


def _inflated(header: _Header, parts: list[memoryview]) -> bytes:
    """All rows of all passes, each after its filter's number."""
    passes = list(header.rows())
    expected = sum(rows * nbytes for rows, nbytes in passes)
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(b"".join(parts), expected)
        inflater.decompress(inflater.unconsumed_tail, 1)  # goes on to the checksum
    except zlib.error:
        raise InvalidRequestError(_BROKEN) from None
    if len(data) < expected:
        raise InvalidRequestError(_BROKEN)
    start = 0
    for rows, nbytes in passes:
        filters = np.frombuffer(data, np.uint8, rows * nbytes, start)[::nbytes]
        if filters.max() >= _FILTERS:
            raise InvalidRequestError(_BROKEN)
        start += rows * nbytes
    return data

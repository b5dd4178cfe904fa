"""Whether a video file ends before its container says that it ends, from the sizes in the container. Decodes nothing.

Only whole structure is judged, so that no file of an odd writer is called cut: an unknown container, a size that was
left open, as live writers do, and bytes after the end pass.
"""

import struct
from pathlib import Path
from typing import BinaryIO

_MOST_BOXES = 1_000_000  # of fragments, some per second: days of video; more is no file that ends
_ISO_BOXES = frozenset(b"emsg free ftyp mdat meta mfra moof moov pdin prft sidx skip ssix styp udta uuid wide".split())
_EBML, _SEGMENT = b"\x1aE\xdf\xa3", b"\x18S\x80g"  # Matroska and WebM
_TS_LENGTHS = ((188, 0), (192, 4))  # of a transport packet, and where its sync byte is: broadcast, Blu-ray
_FLV_TAG_BYTES = 11  # before the data of a tag


def ends_early(path: Path) -> bool:
    """Whether the file ends inside a part whose size it declares. False for a file that cannot be read or judged."""
    try:
        with path.open("rb") as file:
            head, size = file.read(12), path.stat().st_size
            if head[4:8] in _ISO_BOXES:
                return _iso(file, size)
            if head[:4] == _EBML:
                return _matroska(file, size)
            if head[:4] == b"RIFF":
                return _riff(file, size)
            if head[:3] == b"FLV":
                return _flv(file, size)
            return _transport_stream(file, size)
    except (OSError, ValueError, struct.error):  # the sizes lead beyond the bytes
        return False


def _iso(file: BinaryIO, size: int) -> bool:
    """MP4 and QuickTime: boxes, each with its size."""
    position = 0
    for _ in range(_MOST_BOXES):
        if size - position < 8:
            return False
        length, kind = struct.unpack(">I4s", _read(file, position, 8))
        if kind not in _ISO_BOXES or length == 0:  # bytes after the end; a box that goes up to the end
            return False
        if length == 1:
            (length,) = struct.unpack(">Q", _read(file, position + 8, 8))
        if length < 8:
            return False
        position += length
        if position > size:
            return True
    return False


def _matroska(file: BinaryIO, size: int) -> bool:
    """Matroska and WebM: a header, then one segment; a live writer leaves the size of the segment open."""
    header = _ebml_size(file, 4)
    if header is None:
        return False
    start = header[0] + header[1]
    if _read(file, start, 4) != _SEGMENT:
        return False
    segment = _ebml_size(file, start + 4)
    return segment is not None and segment[0] + segment[1] > size


def _ebml_size(file: BinaryIO, position: int) -> tuple[int, int] | None:
    """Return where the content of an element begins, and its size; None for a size that is left open, or is none."""
    (first,) = _read(file, position, 1)
    length = 9 - first.bit_length()
    if length > 8:
        return None
    value = int.from_bytes(_read(file, position, length)) & ((1 << 7 * length) - 1)
    return None if value == (1 << 7 * length) - 1 else (position + length, value)


def _riff(file: BinaryIO, size: int) -> bool:
    """AVI: one chunk, or several from 1 GB on. A writer that was killed may have left the size 0."""
    position = 0
    while size - position >= 12:
        kind, length = struct.unpack("<4sI", _read(file, position, 8))
        if kind != b"RIFF" or not length:
            return False
        position += 8 + length
        if position > size:
            return True
        position += length % 2
    return False


def _flv(file: BinaryIO, size: int) -> bool:
    """Flash: each tag is followed by its size, which leads from the end of the file to the begin of the last tag."""
    length = int.from_bytes(_read(file, size - 4, 4))
    start = size - 4 - length
    if length < _FLV_TAG_BYTES or start < 0:
        return True
    return int.from_bytes(_read(file, start + 1, 3)) + _FLV_TAG_BYTES != length


def _transport_stream(file: BinaryIO, size: int) -> bool:
    """MPEG-TS: packets of one length."""
    for length, sync in _TS_LENGTHS:
        first = _read(file, 0, 3 * length)
        if len(first) == 3 * length and first[sync::length] == b"GGG":  # the sync byte is 0x47
            return bool(size % length)
    return False


def _read(file: BinaryIO, position: int, size: int) -> bytes:
    file.seek(position)
    return file.read(size)

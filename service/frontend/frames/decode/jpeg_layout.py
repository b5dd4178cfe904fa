"""The layout of a JPEG file: its segments, found without decoding a pixel, and a header without libjpeg's warnings.

Cameras write headers that break the standard in ways that do not touch a pixel, and simplejpeg refuses every file for
which libjpeg has a warning. `mend` rewrites such a header. `end_of_data` counts the passes over the picture, which a
hostile file makes expensive. Both stop at the end of the picture: later bytes (the video of a motion photo, padding)
and the inside of segments (thumbnails, metadata) are not part of the walk.

Pure functions. A walk costs Python steps for each segment only, never for each byte; MAX_SEGMENTS bounds them.
"""

import itertools
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from forebay_server.service.errors import InvalidRequestError

MAX_SCANS = 64  # progressive files have about ten; each one is a pass over the whole picture
MAX_SEGMENTS = 2000  # 16 MB of colour profile and metadata, in segments of 64 KB, are 256

SOI, EOI, SOS, DRI, APP0, APP2, APP14 = 0xD8, 0xD9, 0xDA, 0xDD, 0xE0, 0xE2, 0xEE
_MENDABLE = frozenset((SOS, APP0, APP2, APP14))  # what `_mended` may change
END = bytes((0xFF, EOI))
_START = bytes((0xFF, SOI))
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15; between them are DHT, JPG and DAC
_SEQUENTIAL = frozenset((0xC0, 0xC1, 0xC9))
_HUFFMAN_SEQUENTIAL = _SEQUENTIAL - {0xC9}
"""Frames for which libjpeg warns if data is missing. Its arithmetic decoder silently takes zeros, as the standard says.
"""
_WITHOUT_LENGTH = frozenset(range(0xC0)) | {SOI}
"""SOI and markers that no JPEG file contains. libjpeg gives up there; walking on can only count too many scans."""
_SHORTEST_SOS = 6  # its length, a count of components, and the bytes of _WHOLE_SPECTRUM
_WHOLE_SPECTRUM = b"\x00\x3f\x00"  # Ss, Se, Ah and Al of a sequential scan
_TRANSFORMS = {3: b"\x00\x01", 4: b"\x00\x02"}  # Adobe's colour transforms that libjpeg knows; the last is its default

_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # in compressed data a zero or a restart number follows 0xFF
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_END = re.compile(re.escape(END))

Buffer = bytes | memoryview


class Segment(NamedTuple):
    """Bytes `start` to `end` of the file: a marker, its length and its content. A file has ten and more."""

    marker: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Head:
    """Everything up to the compressed data of the first scan.

    Attributes:
        segments: all after SOI, the first SOS last.
        frame: marker of the SOF, 0xC0 to 0xCF.
        precision: bits of a sample.
        size: (width, height) in pixels.
        components: 1 for grey, 3 for colour, 4 for CMYK.
        is_single_scan: libjpeg reads one scan and no more, and would warn if data of it were missing.
        mcus: blocks that the scan has, if there is only one.
        restart_interval: how many of them lie between two restart markers; 0 without such markers.
        is_odd: libjpeg would warn, or there is a colour profile, which libjpeg checks and no code uses.
    """

    segments: tuple[Segment, ...]
    frame: int
    precision: int
    size: tuple[int, int]
    components: int
    is_single_scan: bool
    mcus: int
    restart_interval: int
    is_odd: bool

    @property
    def data(self) -> int:
        """Where the compressed data of the first scan starts."""
        return self.segments[-1].end


def read_head(file: Buffer) -> Head:
    """Walk the segments up to the first scan.

    Raises:
        InvalidRequestError: the file is not a JPEG, ends before its first scan, or contradicts itself.
    """
    if bytes(file[:2]) != _START:
        raise InvalidRequestError("payload is not a JPEG file; it does not start with FF D8")
    segments = _segments_before_data(file)
    frame, scan = _only_frame(segments), segments[-1]
    precision, height, width, components = struct.unpack_from(">BHHB", file, frame.start + 4)
    return Head(
        segments=segments,
        frame=frame.marker,
        precision=precision,
        size=(width, height),
        components=components,
        mcus=_mcus(file, frame, (width, height), components),
        restart_interval=_restart_interval(file, segments),
        is_single_scan=frame.marker in _HUFFMAN_SEQUENTIAL and file[scan.start + 4] == components,
        is_odd=_is_odd(file, segments, components, frame.marker),
    )


def _only_frame(segments: Sequence[Segment]) -> Segment:
    frame: Segment | None = None
    count = 0
    for segment in segments:
        if segment.marker in _FRAMES:
            frame = segment
            count += 1
    if frame is None or count != 1 or frame.end - frame.start < 10:
        raise InvalidRequestError("JPEG needs one frame header before its first scan; send a file that a decoder opens")
    return frame


def _is_odd(file: Buffer, segments: Sequence[Segment], components: int, frame: int) -> bool:
    """Whether there are stray bytes between segments, or one that has to be mended."""
    end = len(_START)
    for segment in segments:
        if segment.start != end:
            return True
        if segment.marker in _MENDABLE and _mended(file, segment, components, frame) is not None:
            return True
        end = segment.end
    return False


def _mcus(file: Buffer, frame: Segment, size: tuple[int, int], components: int) -> int:
    """Number of units of compressed data in a scan of all components; one component alone has units of 8 x 8."""
    factors = file[frame.start + 11 : frame.end : 3] if components > 1 else b"\x11"
    wide = high = 1
    for each in factors:
        wide, high = max(wide, each >> 4), max(high, each & 15)
    return -(-size[0] // (8 * wide)) * -(-size[1] // (8 * high))


def _restart_interval(file: Buffer, segments: Sequence[Segment]) -> int:
    interval = 0
    for segment in segments:
        if segment.marker == DRI:  # the last one holds
            interval = int.from_bytes(file[segment.start + 4 : segment.end], "big")
    return interval


def _segments_before_data(file: Buffer) -> tuple[Segment, ...]:
    segments: list[Segment] = []
    start = 2
    while not segments or segments[-1].marker != SOS:
        segment = _next_segment(file, start)
        if segment is None or segment.marker == EOI:
            raise InvalidRequestError("JPEG is truncated: it ends before its first scan; send the whole file")
        segments.append(segment)
        start = segment.end
        if len(segments) > MAX_SEGMENTS:
            raise InvalidRequestError(f"JPEG has more than {MAX_SEGMENTS} segments; send it without metadata")
    return tuple(segments)


def _next_segment(file: Buffer, position: int) -> Segment | None:
    """The next marker at or after `position` and its segment; None if the file ends before or inside it."""
    found = _MARKER.search(file, position)
    if found is None:
        return None
    start = found.start()
    marker = file[start + 1]
    if marker == EOI or marker in _WITHOUT_LENGTH:
        return Segment(marker, start, start + 2)
    length = int.from_bytes(file[start + 2 : start + 4], "big")
    if start + 4 <= len(file) and length < (_SHORTEST_SOS if marker == SOS else 2):
        raise InvalidRequestError(f"JPEG is broken: a segment says that it has {length} bytes; send the file again")
    return Segment(marker, start, start + 2 + length) if start + 4 <= start + 2 + length <= len(file) else None


def _mended(file: Buffer, segment: Segment, components: int, frame: int) -> bytes | None:
    """The replacement of the segment, empty for metadata; None for a valid segment."""
    start, content = segment.start, bytes(file[segment.start + 4 : segment.end][:16])
    if segment.marker == APP0 and len(content) >= 14 and content.startswith(b"JFIF\0") and content[5] != 1:
        return bytes(file[start : start + 9]) + b"\x01" + bytes(file[start + 10 : segment.end])
    if segment.marker == APP2 and content.startswith(b"ICC_PROFILE\0"):
        return b""
    if segment.marker == APP14 and content.startswith(b"Adobe") and len(content) >= 12:
        transforms = _TRANSFORMS.get(components, content[11:12])
        if content[11:12] not in transforms:
            return bytes(file[start : start + 15]) + transforms[-1:] + bytes(file[start + 16 : segment.end])
    if segment.marker == SOS and frame in _SEQUENTIAL and bytes(file[segment.end - 3 : segment.end]) != _WHOLE_SPECTRUM:
        return bytes(file[start : segment.end - 3]) + _WHOLE_SPECTRUM
    return None


def mend(file: Buffer, head: Head) -> bytes:
    """Return the file with an equivalent header that follows the standard.

    Stray bytes between segments are dropped. JFIF's version becomes 1, an unknown colour transform becomes the one that
    libjpeg assumes, and a sequential scan declares the whole spectrum.
    """
    parts = [_START]
    for segment in head.segments:
        mended = _mended(file, segment, head.components, head.frame)
        parts.append(bytes(file[segment.start : segment.end]) if mended is None else mended)
    parts.append(bytes(file[head.data :]))
    return b"".join(parts)


def end_of_data(file: Buffer, head: Head) -> int | None:
    """Return the end of the picture's compressed data; None if scans are missing.

    Several scans, and those of arithmetic coding, are a whole picture only with an end marker after them and a scan for
    every component.

    Raises:
        InvalidRequestError: there are more scans or segments than in any real file.
    """
    if head.is_single_scan:
        return _end_of_scan(file, head.data)
    segment: Segment | None = head.segments[-1]
    scans, end, components = 0, head.data, set[int]()
    for _ in range(MAX_SEGMENTS):
        if segment is None or segment.marker == EOI:
            return end if segment is not None and len(components) == head.components else None
        if segment.marker == SOS:
            scans += 1
            if scans > MAX_SCANS:
                raise InvalidRequestError(f"JPEG has more than {MAX_SCANS} scans; send it baseline")
            components.update(file[segment.start + 5 : segment.end - 3 : 2])
            end = _end_of_scan(file, segment.end)
        segment = _next_segment(file, max(end, segment.end))
    raise InvalidRequestError(f"JPEG has more than {MAX_SEGMENTS} segments; send it without metadata")


def _end_of_scan(file: Buffer, position: int) -> int:
    found = _MARKER.search(file, position)
    return len(file) if found is None else found.start()


def restarts_missing_at_end(file: Buffer, head: Head) -> int:
    """Number of restart markers that are missing after the last one of a picture with one scan.

    They count from 0 to 7 and again, so the last one gives the number if fewer than eight are missing; with more
    missing, or with extra markers, the answer is 8.
    """
    expected = -(-head.mcus // head.restart_interval) - 1
    found = _RESTART.finditer(file, head.data, _end_of_scan(file, head.data))
    numbers = [match.group()[1] & 7 for match in itertools.islice(found, expected + 1)]
    if not 0 <= expected - len(numbers) < 8:
        return 8
    return (expected - 1 - (numbers[-1] if numbers else 7)) % 8


def has_end(file: Buffer, head: Head) -> bool:
    """Whether an end marker follows the start of the first scan. It is most often the file's last two bytes."""
    return bytes(file[-2:]) == END or _END.search(file, head.data) is not None

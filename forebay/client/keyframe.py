"""Whether decoding can begin at an access unit of H.264 or H.265, without any unit before it. Pure.

Decides as the server does (`service.frontend.frames.video`): by the NAL units before the first slice, and by the type
of this slice. Reads a few bytes of each. Decoding begins at no bytes that are not an access unit in Annex B form.
"""

import contextlib
from collections.abc import Iterator

from forebay.client.options import Encoding

MOST_NAL_UNITS = 256  # before the first slice, where encoders write fewer than ten: limits the time for odd bytes
_START = b"\0\0\1"
_SEI_BYTES = 64  # of a NAL unit of SEI; the server looks no further for a recovery point

_H264_SLICES, _H264_IDR, _H264_SEI, _H264_SETS = (1, 2, 5), 5, 6, {7, 8}
_RECOVERY_POINT = 6  # type of an SEI message
_H265_SLICES, _H265_KEYFRAMES, _H265_SETS = range(32), range(16, 22), {33, 34}


def can_begin_at(unit: bytes, encoding: Encoding, *, has_sets: bool) -> bool:
    """Return whether decoding can begin at a unit.

    Args:
        unit: the payload of a frame.
        encoding: of the stream; False for all but h264 and h265.
        has_sets: whether the decoder has the parameter sets already; if not, the unit must bring them.
    """
    with contextlib.suppress(IndexError):  # the unit ends within the header of a NAL unit
        if encoding == "h264":
            return _can_begin_at_h264(unit, has_sets=has_sets)
        if encoding == "h265":
            return _can_begin_at_h265(unit, has_sets=has_sets)
    return False


def _can_begin_at_h264(unit: bytes, *, has_sets: bool) -> bool:
    kinds: set[int] = set()
    recovers = False
    for begin in _nal_units(unit):
        kind = unit[begin] & 31
        if kind in _H264_SLICES:
            return (kind == _H264_IDR or recovers) and (has_sets or kinds >= _H264_SETS)
        if kind == _H264_SEI:
            recovers = recovers or _has_recovery_point(unit[begin + 1 : begin + 1 + _SEI_BYTES].partition(_START)[0])
        kinds.add(kind)
    return False


def _can_begin_at_h265(unit: bytes, *, has_sets: bool) -> bool:
    kinds: set[int] = set()
    for begin in _nal_units(unit):
        kind, layer = unit[begin] >> 1 & 63, (unit[begin] & 1) << 5 | unit[begin + 1] >> 3
        if layer:
            continue  # of another view or quality, which the server does not decode
        if kind in _H265_SLICES:
            return kind in _H265_KEYFRAMES and (has_sets or kinds >= _H265_SETS)
        kinds.add(kind)
    return False


def _nal_units(unit: bytes) -> Iterator[int]:
    """Yield where each NAL unit begins, after its start code."""
    start = unit.find(_START)
    if unit[: max(0, start)].strip(b"\0"):
        return
    for _ in range(MOST_NAL_UNITS):
        if start < 0:
            return
        yield start + len(_START)
        start = unit.find(_START, start + len(_START))


def _has_recovery_point(sei: bytes) -> bool:
    """Return whether one of the first SEI messages of a NAL unit is a recovery point."""
    data = sei.replace(b"\0\0\3", b"\0\0")
    position = 0
    with contextlib.suppress(IndexError):  # a message goes on behind the bytes that are read
        while position + 2 < len(data):
            kind, position = _extended(data, position)
            size, position = _extended(data, position)
            if kind == _RECOVERY_POINT:
                return True
            position += size
    return False


def _extended(data: bytes, position: int) -> tuple[int, int]:
    """Read a number of an SEI message, 255 for each byte of FF, and return it and the position after it."""
    value = 0
    while data[position] == 255:
        value, position = value + 255, position + 1
    return value + data[position], position + 1

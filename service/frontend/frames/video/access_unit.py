"""The kind of an access unit: a keyframe or not, needed by others or not, and the parameter sets that it brings.

A frame of a stream of H.264 or H.265 is one access unit in Annex B form: NAL units, each after a start code. The server
trusts no flag of a client. It reads the headers of the NAL units, a few bytes of each, and looks at no coded pixel.

Owner: the worker that has the stream's turn. Pure, except that a `UnitReader` remembers parameter sets.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from forebay_server.service.errors import InvalidRequestError
from forebay_server.service.frontend.frames.video.bits import Bits, BitsEndError, without_escapes
from forebay_server.service.frontend.frames.video.parameter_sets import (
    ParameterSetError,
    Sequence,
    read_h264,
    read_h265,
)
from forebay_server.service.frontend.frames.video.slices import SliceLayout

CodecName = Literal["h264", "hevc"]

MOST_UNITS = 4096  # NAL units of one frame; each costs about 2 µs here, and encoders write a slice for each row at most
MOST_SET_BYTES = 16 << 10  # of one parameter set; encoders write less than 200
MOST_SETS = 64  # parameter sets of one frame; reading a broken one takes up to 3 ms
MOST_KEPT_BYTES = 64 << 10  # of all parameter sets of a stream; the oldest are forgotten
_READ_SET_BYTES = 1024  # the fields that are read lie in these, all scaling lists before them
MOST_PLACES = 32  # slices of one frame whose places are compared; reading one takes about 5 µs
_SLICE_HEADER_BYTES = 24  # enough for the fields that are read
_START = b"\0\0\1"
_WORDS: dict[CodecName, str] = {"h264": "H264", "hevc": "H265"}
_NO_START = (
    "frame does not begin with a start code of Annex B (00 00 01){}; use the bitstream filter h264_mp4toannexb or "
    "hevc_mp4toannexb of FFmpeg, or byte-stream in GStreamer"
)
_LENGTHS = ", but with a length, as in MP4 files (AVCC)"

_H264_SLICE, _H264_IDR, _H264_SEI, _H264_SPS, _H264_PPS = 1, 5, 6, 7, 8
_RECOVERY_POINT, _PICTURE_HASH = 6, 132  # types of SEI messages
_B_SLICES, _I_SLICES = (1, 6), (2, 7)
_H265_VPS, _H265_SPS, _H265_PPS, _H265_SUFFIX_SEI = 32, 33, 34, 40
_H265_KEYFRAMES = range(16, 22)  # BLA, IDR and CRA
_H265_MAY_LEAD = (16, 17, 21)  # BLA and CRA, which leading pictures may follow
_H265_SKIPPED_LEADING = (8, 9)  # RASL
_H265_BEGIN_LAYER = range(2, 6)  # TSA and STSA
_H265_SLICES = range(32)


@dataclass(slots=True)
class AccessUnit:
    """One picture, or both fields of one.

    Attributes:
        is_keyframe: decoding may begin here.
        may_lead: pictures that follow a keyframe may be shown before it and need pictures from before it.
        is_leading: a picture that may be such a one.
        is_reference: other pictures may need it.
        is_highest_layer: it is of H.265's highest temporal layer, which no lower one needs, and not of the only one.
        begins_layer: it needs no earlier picture of its temporal layer.
        recovery_units: pictures until everything is right again after joining here; only of gradual refresh.
        frame_num: of H.264; None for H.265.
        parity: of H.264: 1 for a top field alone, 2 for a bottom field alone, 0 for a frame or both fields.
        sequence: the parameters that it uses; None if they are not known.
        places: of H.265: blocks at which its slices begin, in their order; the first MOST_PLACES.
        has_sum: of H.265: it ends with a check sum of its pixels.
        pictures: pictures in it, of which two fields are one; only the first is described.
        sets: parameter sets in it.
    """

    is_keyframe: bool = False
    may_lead: bool = False
    is_leading: bool = False
    is_reference: bool = False
    is_highest_layer: bool = False
    begins_layer: bool = False
    recovery_units: int | None = None
    frame_num: int | None = None
    parity: int = 0
    sequence: Sequence | None = None
    places: tuple[int, ...] = ()
    has_sum: bool = False
    pictures: int = 0
    sets: int = 0


class UnitReader:
    """Reads the frames of one stream.

    Args:
        codec: of the stream.

    Attributes:
        sequences: sequence parameter sets by their number, at most 32.
    """

    def __init__(self, codec: CodecName) -> None:
        self.codec = codec
        self.sequences: dict[int, Sequence] = {}
        self._sequence_of: dict[int, int] = {}  # picture parameter set -> sequence parameter set
        self._have_dependent: dict[int, bool] = {}  # picture parameter set -> whether slices may depend on others
        self._layout = SliceLayout()
        self._sets: dict[tuple[int, int], bytes] = {}  # by kind and number, the newest of each; oldest first
        self._sets_bytes = 0
        self._has_sums = False  # the latest keyframe had a check sum: so have all units up to the next one

    @property
    def word(self) -> str:
        """The encoding's name on the wire."""
        return _WORDS[self.codec]

    @property
    def sets(self) -> bytes:
        """The parameter sets that are in force, in Annex B form: a decoder that joins now needs them."""
        return b"".join(_START + self._sets[key] for key in sorted(self._sets))

    def read_sets(self, data: bytes) -> None:
        """Take parameter sets that come before the first frame. Raises InvalidRequestError."""
        self._read(data, AccessUnit())
        if not self.sequences:
            raise InvalidRequestError(f"there is no sequence parameter set of {self.word} in it")

    def read(self, data: bytes) -> AccessUnit:
        """Return the description of a frame, and remember its parameter sets.

        Raises:
            InvalidRequestError: it is no access unit in Annex B form, or several, or a parameter set is broken.
        """
        unit = AccessUnit()
        self._read(data, unit)
        if not unit.pictures:
            raise InvalidRequestError(
                "frame has no picture in it; send parameter sets and SEI in one frame with the picture that follows"
            )
        if unit.pictures > 1:
            raise InvalidRequestError(f"frame has {unit.pictures} pictures in it; send one access unit in each frame")
        if self._layout.lacks_slices(unit.places):
            raise InvalidRequestError("frame lacks slices that the frames before it have; send whole access units")
        if unit.is_keyframe:
            self._has_sums = unit.has_sum
        elif self._has_sums and not unit.has_sum:
            raise InvalidRequestError("frame lacks the check sum that its keyframe has: its end is missing")
        return unit

    def _read(self, data: bytes, unit: AccessUnit) -> None:
        take = self._take_h264 if self.codec == "h264" else self._take_h265
        try:
            for start, end in nal_units(data):
                take(data, start, end, unit)
        except (BitsEndError, ParameterSetError, IndexError):
            raise InvalidRequestError(
                f"frame has a NAL unit of {self.word} with a header that is cut or broken"
            ) from None

    def _take_h264(self, data: bytes, start: int, end: int, unit: AccessUnit) -> None:
        kind = data[start] & 31
        if kind in {_H264_SLICE, _H264_IDR, 2}:  # 2: partition A, which decoders refuse in words
            self._take_h264_slice(data[start : min(end, start + _SLICE_HEADER_BYTES)], unit)
        elif kind == _H264_SPS:
            number, sequence = read_h264(Bits(_set(data, start + 1, end, unit)))
            self.sequences[number] = sequence
            self._keep(kind, number, data[start:end])
        elif kind == _H264_PPS:
            number = self._take_pps(Bits(_set(data, start + 1, end, unit)[:16]), 255)
            self._keep(kind, number, data[start:end])
        elif kind == _H264_SEI and not unit.pictures:
            with contextlib.suppress(BitsEndError, IndexError):  # a message goes on behind the bytes that are read
                found = _recovery(without_escapes(data[start + 1 : min(end, start + 65)]))
                if found is not None:  # a later NAL unit of SEI without a recovery point takes back nothing
                    unit.recovery_units = found

    def _take_pps(self, bits: Bits, most: int) -> int:
        """Take a picture parameter set and return its number."""
        number, sequence_number = bits.unsigned(), bits.unsigned()
        if number > most:
            raise ParameterSetError
        self._sequence_of[number] = sequence_number
        return number

    def _keep(self, kind: int, number: int, data: bytes) -> None:
        """Keep a parameter set instead of the earlier one of its number."""
        self._sets_bytes += len(data) - len(self._sets.pop((kind, number), b""))
        self._sets[kind, number] = data
        while self._sets_bytes > MOST_KEPT_BYTES:
            self._sets_bytes -= len(self._sets.pop(next(iter(self._sets))))

    def _take_h264_slice(self, header: bytes, unit: AccessUnit) -> None:
        bits = Bits(without_escapes(header[1:]))
        first, slice_type, number = bits.unsigned(), bits.unsigned(), bits.unsigned()
        if first:
            _require_first(unit)
            return
        sequence = self.sequences.get(self._sequence_of.get(number, -1))
        frame_num, parity = (None, 0) if sequence is None else _frame_num_and_parity(bits, sequence)
        if unit.pictures == 1 and unit.parity + parity == 3 and frame_num == unit.frame_num:
            unit.parity = 0
            return
        unit.pictures += 1
        if unit.pictures > 1 or sequence is None:
            return
        unit.sequence, unit.frame_num, unit.parity = sequence, frame_num, parity
        unit.is_reference = bool(header[0] & 0x60)
        unit.is_leading = slice_type in _B_SLICES
        is_idr = header[0] & 31 == _H264_IDR
        unit.is_keyframe = is_idr or (unit.recovery_units == 0 and slice_type in _I_SLICES)
        unit.may_lead = not is_idr

    def _take_h265(self, data: bytes, start: int, end: int, unit: AccessUnit) -> None:
        kind, layer = data[start] >> 1 & 63, (data[start] & 1) << 5 | data[start + 1] >> 3
        if layer:
            return  # of another view or quality, which nothing here needs
        if kind == _H265_SPS:
            number, sequence = read_h265(Bits(_set(data, start + 2, end, unit)))
            self.sequences[number] = sequence
            self._keep(kind, number, data[start:end])
        elif kind == _H265_PPS:
            bits = Bits(_set(data, start + 2, end, unit)[:16])
            number = self._take_pps(bits, 63)
            self._have_dependent[number] = bits.flag()
            self._keep(kind, number, data[start:end])
        elif kind == _H265_VPS:
            self._keep(kind, Bits(_set(data, start + 2, end, unit)[:1]).read(4), data[start:end])
        elif kind == _H265_SUFFIX_SEI:
            unit.has_sum = unit.has_sum or data[start + 2] == _PICTURE_HASH
        elif kind in _H265_SLICES:
            if data[start + 2] & 0x80:
                self._take_h265_slice(data[start : min(end, start + _SLICE_HEADER_BYTES)], kind, unit)
            else:
                _require_first(unit)
                self._take_h265_place(data[start : min(end, start + _SLICE_HEADER_BYTES)], kind, unit)

    def _take_h265_place(self, header: bytes, kind: int, unit: AccessUnit) -> None:
        """Read at which block a later slice begins (7.3.6.1)."""
        if unit.sequence is None or len(unit.places) == MOST_PLACES:
            return
        bits = Bits(without_escapes(header[2:]))
        bits.skip(2 if kind >= _H265_KEYFRAMES.start and kind < 24 else 1)
        bits.skip(self._have_dependent.get(bits.unsigned(), False))
        unit.places += (bits.read(unit.sequence.place_bits),)

    def _take_h265_slice(self, header: bytes, kind: int, unit: AccessUnit) -> None:
        unit.pictures += 1
        if unit.pictures > 1:
            return
        bits = Bits(without_escapes(header[2:]))
        bits.skip(2 if kind >= _H265_KEYFRAMES.start and kind < 24 else 1)
        unit.sequence = self.sequences.get(self._sequence_of.get(bits.unsigned(), -1))
        unit.places = (0,)
        unit.is_keyframe = kind in _H265_KEYFRAMES
        unit.may_lead = kind in _H265_MAY_LEAD
        unit.is_leading = kind in _H265_SKIPPED_LEADING
        # Below 16, even types are needed by no picture of their temporal layer; only in the highest one by none at all.
        layer = (header[1] & 7) - 1
        is_highest = unit.sequence is not None and layer == unit.sequence.highest_layer
        unit.is_highest_layer = is_highest and layer > 0
        unit.begins_layer = kind in _H265_BEGIN_LAYER
        unit.is_reference = kind >= 16 or kind % 2 == 1 or not is_highest


def nal_units(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield where each NAL unit begins, after its start code, and where it ends; empty ones are left out.

    Raises:
        InvalidRequestError: the data is empty, does not begin with a start code, or has too many units.
    """
    start = data.find(_START)
    if start < 0 or data[:start].strip(b"\0"):
        looks_like_lengths = len(data) > 5 and 0 < int.from_bytes(data[:4], "big") <= len(data) - 4
        raise InvalidRequestError(_NO_START.format(_LENGTHS if looks_like_lengths else ""))
    for _ in range(MOST_UNITS):
        begin = start + 3
        start = data.find(_START, begin)
        end = len(data) if start < 0 else start
        if not data[end - 1]:
            end = begin + len(data[begin:end].rstrip(b"\0"))
        if end > begin:
            yield begin, end
        if start < 0:
            return
    raise InvalidRequestError(f"frame has more than {MOST_UNITS} NAL units; send one access unit in each frame")


def _require_first(unit: AccessUnit) -> None:
    """Refuse a later slice that comes first: a decoder may begin a picture with it, of parameters never looked at."""
    if not unit.pictures:
        raise InvalidRequestError("frame lacks the first slice of its picture; send whole access units")


def _frame_num_and_parity(bits: Bits, sequence: Sequence) -> tuple[int, int]:
    """Read on in a slice header of H.264, after the number of the picture parameter set."""
    frame_num = bits.read(sequence.frame_num_bits)
    parity = 1 + bits.flag() if sequence.has_fields and bits.flag() else 0
    return frame_num, parity


def _set(data: bytes, start: int, end: int, unit: AccessUnit) -> bytes:
    unit.sets += 1
    if unit.sets > MOST_SETS:
        raise InvalidRequestError(f"frame has more than {MOST_SETS} parameter sets; send each of them once")
    if end - start > MOST_SET_BYTES:
        raise InvalidRequestError(
            f"frame has a parameter set of {end - start} bytes, which exceeds the limit of {MOST_SET_BYTES}"
        )
    return without_escapes(data[start : min(end, start + _READ_SET_BYTES)])


def _recovery(payload: bytes) -> int | None:
    """Return the recovery_frame_cnt of a recovery point among the first SEI messages; None without one."""
    position = 0
    while position + 2 < len(payload):
        kind, position = _extended(payload, position)
        size, position = _extended(payload, position)
        if kind == _RECOVERY_POINT:
            return Bits(payload[position : position + size]).unsigned()
        position += size
    return None


def _extended(payload: bytes, position: int) -> tuple[int, int]:
    """Read a number of an SEI message, 255 for each byte of FF, and return it and the position after it."""
    value = 0
    while payload[position] == 255:
        value, position = value + 255, position + 1
    return value + payload[position], position + 1

"""Interlaced H.264 with a picture for each field (PAFF), which no encoder of FFmpeg makes: uncompressed macroblocks.

Main profile, 64x64, CAVLC. Every macroblock is I_PCM, so that each field has the grey level that it is given.
"""

from dataclasses import dataclass

SIDE = 64
_MACROBLOCKS = SIDE // 16 * SIDE // 32  # of a field
_PCM = 25  # mb_type of I_PCM in an I slice
_FRAME_NUM_BITS = _ORDER_BITS = 4


class _Writer:
    def __init__(self):
        self.bits = ""

    def write(self, value, count):
        self.bits += format(value, f"0{count}b")

    def unsigned(self, *values):
        for value in values:
            code = format(value + 1, "b")
            self.bits += "0" * (len(code) - 1) + code

    def align(self):
        self.bits += "0" * (-len(self.bits) % 8)

    def nal(self, kind, importance, *, has_end=True):
        """The NAL unit with its start code."""
        self.bits += "1" if has_end else ""
        self.align()
        payload = int(self.bits, 2).to_bytes(len(self.bits) // 8, "big")
        escaped = bytearray()
        for byte in payload:
            if byte <= 3 and escaped[-2:] == b"\0\0":
                escaped.append(3)
            escaped.append(byte)
        return b"\0\0\0\1" + bytes([importance << 5 | kind]) + bytes(escaped)


def sets():
    """The parameter sets."""
    sequence = _Writer()
    sequence.write(77, 8)
    sequence.write(0, 8)
    sequence.write(30, 8)
    sequence.unsigned(0, _FRAME_NUM_BITS - 4, 0, _ORDER_BITS - 4, 1)
    sequence.write(0, 1)
    sequence.unsigned(SIDE // 16 - 1, SIDE // 32 - 1)
    sequence.write(0b00100, 5)  # fields; not adaptive by macroblock; direct_8x8; no cropping; no VUI
    picture = _Writer()
    picture.unsigned(0, 0)
    picture.write(0b00, 2)
    picture.unsigned(0, 0, 0)
    picture.write(0b000, 3)
    picture.unsigned(0, 0, 0)
    picture.write(0b000, 3)
    return sequence.nal(7, 3) + picture.nal(8, 3)


@dataclass(frozen=True)
class Field:
    """A coded field, without parameter sets."""

    data: bytes
    is_bottom: bool


def field(grey, number, *, is_bottom, is_keyframe=False, is_reference=True):
    """A coded field: an I slice of macroblocks of one grey level. `number` counts pictures since the keyframe."""
    slice_ = _Writer()
    slice_.unsigned(0, 7, 0)
    slice_.write(number % (1 << _FRAME_NUM_BITS), _FRAME_NUM_BITS)
    slice_.write(2 + is_bottom, 2)
    if is_keyframe:
        slice_.unsigned(0)
    slice_.write((2 * number + is_bottom) % (1 << _ORDER_BITS), _ORDER_BITS)
    if is_reference:
        slice_.write(0, 2 if is_keyframe else 1)
    slice_.unsigned(0)
    for _ in range(_MACROBLOCKS):
        slice_.unsigned(_PCM)
        slice_.align()
        slice_.bits += format(grey, "08b") * 256 + format(128, "08b") * 128
    kind = 5 if is_keyframe else 1
    return Field(slice_.nal(kind, 3 if is_reference else 0), is_bottom)


def interlaced(greys, *, gop=5):
    """For each pair of grey levels both coded fields of a picture; a keyframe has the parameter sets."""
    pairs = []
    for index, (top, bottom) in enumerate(greys):
        number = index % gop
        first = field(top, number, is_bottom=False, is_keyframe=not number)
        second = field(bottom, number, is_bottom=True)
        pairs.append((sets() + first.data if not number else first.data, second.data))
    return pairs

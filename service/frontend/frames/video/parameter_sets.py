"""Sequence parameter sets of H.264 (7.3.2.1) and H.265 (7.3.2.2): the needs of a decoder. Pure.

The server reads them itself, so that a size or a memory that is too large is refused before a decoder sees it. A set is
read as far as it is needed here; libavcodec reads it again and judges the rest.
"""

from dataclasses import dataclass

from forebay_server.service.frontend.frames.video.bits import Bits

_HIGH_PROFILES = frozenset((100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135))
_WITHOUT_B_FRAMES = 66  # Baseline
_EXTENDED_SAR = 255
_MOST_REFERENCES = 16
_MACROBLOCKS = {
    9: 396,
    10: 396,
    11: 900,
    12: 2376,
    13: 2376,
    20: 2376,
    21: 4752,
    22: 8100,
    30: 8100,
    31: 18_000,
    32: 20_480,
    40: 32_768,
    41: 32_768,
    42: 34_816,
    50: 110_400,
    51: 184_320,
    52: 184_320,
}
"""level_idc of H.264 -> MaxDpbMbs of table A-1: of all pictures that a decoder keeps. Levels above keep 16 pictures."""
_MOST_CYCLE = 255  # num_ref_frames_in_pic_order_cnt_cycle
_MOST_CPBS = 32
_CHROMA_SHARES = (1.0, 1.5, 2.0, 3.0)  # samples for each pixel, by chroma_format_idc


class ParameterSetError(Exception):
    """A field has a value that the standard does not know."""


@dataclass(frozen=True, slots=True)
class Sequence:
    """The contents of a sequence parameter set.

    Attributes:
        width: pixels as coded, before cropping.
        height: pixels as coded.
        picture_bytes: of one decoded picture.
        references: pictures that a decoder keeps at most.
        most_buffered: the same for a decoder that goes by the level where the set does not say, as GPUs' do.
        reorder_frames: pictures that may be shown before one that was sent earlier; None where the set does not say.
        has_fields: whether a picture may be one of two fields.
        frame_num_bits: of H.264's frame_num; 0 for H.265.
        may_have_gaps: whether frame_num may have gaps although nothing was lost.
        highest_layer: of H.265's temporal layers.
        place_bits: of H.265's number of the block at which a slice begins.
    """

    width: int
    height: int
    picture_bytes: int
    references: int
    most_buffered: int
    reorder_frames: int | None
    has_fields: bool = False
    frame_num_bits: int = 0
    may_have_gaps: bool = False
    highest_layer: int = 0
    place_bits: int = 0


def _picture_bytes(width: int, height: int, chroma: int, depth: int) -> int:
    return int(width * height * _CHROMA_SHARES[chroma] * (1 if depth == 8 else 2))


def read_h264(bits: Bits) -> tuple[int, Sequence]:
    """Return the number of a set and its contents; `bits` begin after the NAL unit's header.

    Raises BitsEndError and ParameterSetError.
    """
    profile, constraints, level = bits.read(8), bits.read(8), bits.read(8)
    number = _checked(bits.unsigned(), 31)
    chroma, depth = 1, 8
    if profile in _HIGH_PROFILES:
        chroma, depth = _high_fields(bits)
    frame_num_bits = 4 + _checked(bits.unsigned(), 12)
    is_in_order = _order_count(bits) == 2
    references = _checked(bits.unsigned(), _MOST_REFERENCES)
    may_have_gaps = bits.flag()
    width, rows = 16 * (1 + bits.unsigned()), 1 + bits.unsigned()
    has_fields = not bits.flag()
    if has_fields:
        bits.skip(1)
    height = 16 * rows * (2 if has_fields else 1)
    bits.skip(1)
    if bits.flag():
        for _ in range(4):
            bits.unsigned()
    reorder, buffered = _restriction(bits) if bits.flag() else (None, references)
    by_level = _MACROBLOCKS.get(level, 1 << 30) * 256 // (width * height) if reorder is None else 0
    is_baseline = profile == _WITHOUT_B_FRAMES or (profile in _HIGH_PROFILES and bool(constraints & 0x10))
    if is_in_order or is_baseline:
        reorder = 0
    kept = max(references, buffered, reorder or 0)
    size = _picture_bytes(width, height, chroma, depth)
    most = max(kept, min(by_level, _MOST_REFERENCES))
    return number, Sequence(width, height, size, kept, most, reorder, has_fields, frame_num_bits, may_have_gaps)


def _high_fields(bits: Bits) -> tuple[int, int]:
    chroma = _checked(bits.unsigned(), 3)
    if chroma == 3:
        bits.skip(1)
    depth = 8 + max(_checked(bits.unsigned(), 6), _checked(bits.unsigned(), 6))
    bits.skip(1)
    if bits.flag():
        for index in range(12 if chroma == 3 else 8):
            if bits.flag():
                _skip_scaling_list(bits, 16 if index < 6 else 64)
    return chroma, depth


def _skip_scaling_list(bits: Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.signed()) % 256
        last = following or last


def _order_count(bits: Bits) -> int:
    """Skip the fields of the picture order count and return its type."""
    kind = _checked(bits.unsigned(), 2)
    if kind == 0:
        bits.unsigned()
    elif kind == 1:
        bits.skip(1)
        bits.signed()
        bits.signed()
        for _ in range(_checked(bits.unsigned(), _MOST_CYCLE)):
            bits.signed()
    return kind


def _restriction(bits: Bits) -> tuple[int | None, int]:
    """Return max_num_reorder_frames and max_dec_frame_buffering of the VUI; None and 0 where it does not say."""
    _skip_appearance(bits)
    if bits.flag():
        bits.skip(65)
    has_buffers = [_skip_hrd(bits) for _ in range(2)]
    if any(has_buffers):
        bits.skip(1)
    bits.skip(1)
    if not bits.flag():
        return None, 0
    bits.skip(1)
    for _ in range(4):
        bits.unsigned()
    reorder, buffered = bits.unsigned(), bits.unsigned()
    return _checked(reorder, _MOST_REFERENCES), _checked(buffered, _MOST_REFERENCES)


def _skip_appearance(bits: Bits) -> None:
    """Skip the fields of the VUI that say how pictures look."""
    if bits.flag() and bits.read(8) == _EXTENDED_SAR:
        bits.skip(32)
    if bits.flag():
        bits.skip(1)
    if bits.flag():
        bits.skip(4)
        if bits.flag():
            bits.skip(24)
    if bits.flag():
        bits.unsigned()
        bits.unsigned()


def _skip_hrd(bits: Bits) -> bool:
    if not bits.flag():
        return False
    count = 1 + _checked(bits.unsigned(), _MOST_CPBS - 1)
    bits.skip(8)
    for _ in range(count):
        bits.unsigned()
        bits.unsigned()
        bits.skip(1)
    bits.skip(20)
    return True


def read_h265(bits: Bits) -> tuple[int, Sequence]:
    """Return the number of a set and its contents; `bits` begin after the NAL unit's header.

    Raises BitsEndError and ParameterSetError.
    """
    bits.skip(4)
    layers = _checked(bits.read(3), 6)
    bits.skip(1 + 96)
    has = [(bits.flag(), bits.flag()) for _ in range(layers)]
    if layers:
        bits.skip(2 * (8 - layers))
    for has_profile, has_level in has:
        bits.skip(88 * has_profile + 8 * has_level)
    number = _checked(bits.unsigned(), 15)
    chroma = _checked(bits.unsigned(), 3)
    if chroma == 3:
        bits.skip(1)
    width, height = bits.unsigned(), bits.unsigned()
    if bits.flag():
        for _ in range(4):
            bits.unsigned()
    depth = 8 + max(_checked(bits.unsigned(), 8), _checked(bits.unsigned(), 8))
    bits.unsigned()
    kept = reorder = 0
    for _ in range(layers + 1 if bits.flag() else 1):
        kept, reorder = 1 + bits.unsigned(), bits.unsigned()
        bits.unsigned()
    kept, reorder = _checked(kept, _MOST_REFERENCES), _checked(reorder, _MOST_REFERENCES)
    side = 1 << 3 + _checked(bits.unsigned() + bits.unsigned(), 3)  # of a coding tree block, 8 to 64 pixels
    place_bits = (-(-width // side) * -(-height // side) - 1).bit_length()
    size = _picture_bytes(width, height, chroma, depth)
    return number, Sequence(width, height, size, kept, kept, reorder, highest_layer=layers, place_bits=place_bits)


def _checked(value: int, most: int) -> int:
    if value > most:
        raise ParameterSetError
    return value

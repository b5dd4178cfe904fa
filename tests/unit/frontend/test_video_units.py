"""Access units as the server reads them: keyframes, references, parameter sets; and bytes that are none."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.service.errors import InvalidRequestError
from forebay_server.service.frontend.frames.video.access_unit import MOST_SETS, UnitReader, nal_units
from forebay_server.service.frontend.frames.video.bits import Bits, BitsEndError, without_escapes
from forebay_server.service.frontend.frames.video.codec import LibavCodec
from tests.support.videos import clip, encode, levels, parameter_sets, without_vui

CODECS = ["h264", "hevc"]


def read_all(units, codec):
    reader = UnitReader(codec)
    return [reader.read(unit.data) for unit in units], reader


def test_numbers_of_the_standards():
    bits = Bits(bytes([0b1_010_011_0, 0b0100_0010, 0b1_0000000]))
    assert [bits.unsigned() for _ in range(4)] == [0, 1, 2, 3]
    assert Bits(bytes([0b00100_010, 0b1_0000000])).signed() == 2
    assert Bits(bytes([0b00101_000])).signed() == -2
    with pytest.raises(BitsEndError):
        Bits(b"\0\0\0\0\0").unsigned()
    assert without_escapes(b"\0\0\3\1\0\0\3\0\0\3") == b"\0\0\1\0\0\0\0"


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [(64, 64), (66, 50), (320, 240)])
def test_the_size_and_the_reordering_of_a_clip(codec, size):
    for bframes in (0, 3):
        found, _ = read_all(clip(6, codec, size=size, bframes=bframes), codec)
        sequence = found[0].sequence
        assert sequence.width >= size[0] > sequence.width - 16
        assert sequence.height >= size[1] > sequence.height - 16
        assert bool(sequence.reorder_frames) == bool(bframes)
        assert sequence.references >= 1


@pytest.mark.parametrize("codec", CODECS)
def test_keyframes_are_those_of_the_encoder_and_no_picture_needs_a_b_frame(codec):
    units = clip(25, codec, bframes=2, gop=8)
    found, _ = read_all(units, codec)
    assert [unit.is_keyframe for unit in found] == [unit.is_keyframe for unit in units]
    later_shown = max(unit.shown for unit in units)
    assert any(not unit.is_reference for unit in found)
    for unit, sent in zip(found, units, strict=True):
        assert unit.is_reference or sent.shown < later_shown


@pytest.mark.parametrize(
    ("pixel_format", "codec", "share"),
    [("yuv420p", "h264", 1.5), ("yuv422p", "h264", 2), ("yuv444p", "hevc", 3), ("yuv420p10le", "h264", 3)],
)
def test_the_memory_of_a_picture(pixel_format, codec, share):
    found, _ = read_all(encode(levels(1), codec, pixel_format=pixel_format), codec)
    assert found[0].sequence.picture_bytes == 64 * 64 * share


@pytest.mark.parametrize("codec", CODECS)
def test_parameter_sets_may_come_before_the_first_frame(codec):
    units = clip(3, codec)
    sets = parameter_sets(units[0], codec)
    reader = UnitReader(codec)
    reader.read_sets(sets)
    assert reader.read(units[1].data).sequence is not None
    assert UnitReader(codec).read(units[1].data).sequence is None
    with pytest.raises(InvalidRequestError, match="no sequence parameter set"):
        UnitReader(codec).read_sets(b"\0\0\1\x09\xf0")


def test_interlaced_video_and_open_groups_of_pictures():
    fields, _ = read_all(encode(levels(3), params="tff=1"), "h264")
    assert fields[0].sequence.has_fields
    units = clip(20, bframes=2, gop=6, params="open-gop=1")
    found, _ = read_all(units, "h264")
    joined = [unit for unit in found if unit.is_keyframe]
    assert [unit.may_lead for unit in joined] == [False] + [True] * (len(joined) - 1)
    assert len(joined) > 1


def test_gradual_refresh_has_recovery_points():
    found, _ = read_all(clip(20, size=(128, 128), gop=8, params="intra-refresh=1"), "h264")
    assert [unit.is_keyframe for unit in found] == [True] + [False] * 19
    assert any(unit.recovery_units for unit in found[1:])


def test_a_later_sei_without_a_recovery_point_takes_back_nothing():
    """A camera's own data in a second NAL unit of SEI must not turn a point to join at into an ordinary frame."""
    unit = clip(1)[0]
    recovery, other = b"\0\0\1\x06\x06\x01\xa0\x80", b"\0\0\1\x06\x05\x11" + b"u" * 17 + b"\x80"
    assert UnitReader("h264").read(recovery + unit.data).recovery_units == 0
    assert UnitReader("h264").read(recovery + other + unit.data).recovery_units == 0


@pytest.mark.parametrize("codec", CODECS)
def test_a_unit_that_is_cut_anywhere_is_read_or_refused_in_words(codec):
    unit = clip(1, codec)[0].data
    for end in range(len(unit)):
        try:
            UnitReader(codec).read(unit[:end])
        except InvalidRequestError as error:
            assert error.message.startswith("frame ")  # noqa: PT017 - most ends are refused, some are read


@given(st.binary(max_size=200), st.sampled_from(CODECS))
def test_any_bytes_are_read_or_refused(data, codec):
    for prefix in (b"", b"\0\0\1", b"\0\0\1\x67", b"\0\0\1\x42\1", b"\0\0\1\x06", b"\0\0\1\x68"):
        try:
            UnitReader(codec).read(prefix + data)
        except InvalidRequestError:
            continue


def test_units_end_where_the_next_start_code_begins():
    data = b"\0\0\0\1abc\0\0\0\1\0\0\1de\0\0"
    assert [data[start:end] for start, end in nal_units(data)] == [b"abc", b"de"]


@given(st.binary(max_size=40).map(lambda data: data.replace(b"\0\0\1", b"")), st.integers(0, 40))
def test_zeros_at_the_end_of_a_unit_are_left_out(data, zeros):
    data = data.rstrip(b"\0")
    found = list(nal_units(b"\0\0\1" + data + bytes(zeros) + b"\0\0\1e"))
    assert found == ([(3, 3 + len(data))] if data else []) + [(6 + len(data) + zeros, 7 + len(data) + zeros)]


def test_many_zeros_are_not_walked_through_in_python():
    lines = 0

    def count(frame, event, _):
        nonlocal lines
        lines += event == "line"
        return count

    traced = sys.gettrace()
    sys.settrace(count)
    try:
        found = list(nal_units(b"\0\0\1a" + bytes(10_000)))
    finally:
        sys.settrace(traced)
    assert found == [(3, 4)]
    assert lines < 100


@pytest.mark.parametrize("size", [52, 56, 60, 64, 200])
def test_an_sei_message_may_be_longer_than_what_is_read_of_it(size):
    unit = clip(1)[0]
    sei = b"\x06\x05" + bytes([size]) + b"u" * size + b"\x05" + b"\xff" * 5 + bytes([125]) + b"u" * 1400 + b"\x80"
    assert UnitReader("h264").read(b"\0\0\1" + sei + unit.data).is_keyframe


@pytest.mark.parametrize("codec", CODECS)
def test_a_later_slice_that_comes_before_the_first_is_refused(codec):
    unit = clip(1, codec)[0].data
    later = b"\x65\x5c" if codec == "h264" else b"\x26\x01\x20\x80"
    with pytest.raises(InvalidRequestError, match="lacks the first slice of its picture"):
        UnitReader(codec).read(b"\0\0\1" + later + unit)
    assert UnitReader(codec).read(unit + b"\0\0\1" + later).is_keyframe


def test_parameter_sets_of_a_frame_are_bounded():
    unit = clip(1)[0]
    with pytest.raises(InvalidRequestError, match=f"more than {MOST_SETS} parameter sets"):
        UnitReader("h264").read(parameter_sets(unit) * MOST_SETS + unit.data)


@pytest.mark.parametrize(("level", "most"), [("3.1", 5), ("4.0", 9), ("5.1", 16)])
def test_a_set_that_says_little_leaves_room_for_what_the_level_allows(level, most):
    usual = clip(2, size=(1280, 720), options={"profile": "baseline", "level": level})
    bare = [without_vui(unit) for unit in usual]
    found = UnitReader("h264").read(bare[0].data).sequence
    assert (found.references, found.most_buffered) == (1, most)
    told = UnitReader("h264").read(usual[0].data).sequence
    assert (told.references, told.most_buffered) == (1, 1)
    decoder = LibavCodec("h264", 1 << 24)
    assert [len(list(decoder.decode(unit.data, number))) for number, unit in enumerate(bare)] == [1, 1]

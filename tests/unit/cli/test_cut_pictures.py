"""Keyframes in several packets are joined; packets that are whole pass, and none but keyframes ever wait."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.service.cli.cut_pictures import PictureJoiner, rest_at
from forebay_server.service.frontend.frames.video.access_unit import UnitReader
from tests.support.videos import clip

START = b"\0\0\0\1"
SETS, IDR = {7, 8}, 5


def nals(unit):
    return [part.strip(b"\0") for part in unit.split(b"\0\0\1") if part.strip(b"\0")]


def cut(unit):
    """The packets that FFmpeg makes of a keyframe whose slices have the sets before each."""
    sets = [nal for nal in nals(unit) if nal[0] & 31 in SETS]
    return [START + START.join([*sets, nal]) for nal in nals(unit) if nal[0] & 31 == IDR]


def slices_of(data):
    return [nal for nal in nals(data) if nal[0] & 31 in {1, IDR}]


@pytest.fixture(scope="module")
def units():
    return [(unit.data, unit.is_keyframe) for unit in clip(9, size=(320, 240), gop=3, params="slices=3")]


def joined(packets, codec="h264"):
    joiner = PictureJoiner(codec)
    taken = [list(joiner.take(data, is_keyframe=is_key)) for data, is_key in packets]
    return taken, [*itertools.chain(*taken), *joiner.rest()]


def test_the_parts_of_a_keyframe_are_one_picture_again(units):
    packets = [(part, is_key) for data, is_key in units for part in (cut(data) if is_key else [data])]
    assert len(packets) == len(units) + 2 * 3
    _, whole = joined(packets)
    assert [slices_of(data) for data in whole] == [slices_of(data) for data, _ in units]
    reader = UnitReader("h264")
    assert [reader.read(data).is_keyframe for data in whole] == [is_key for _, is_key in units]


def test_whole_pictures_pass_and_only_the_first_keyframe_waits(units):
    taken, whole = joined(units)
    assert whole == [data for data, _ in units]
    assert [len(each) for each in taken] == [0, 2, *[1] * (len(units) - 2)]


def test_the_last_keyframe_comes_at_the_end(units):
    assert joined(units[:1]) == ([[]], [units[0][0]])


@pytest.mark.parametrize(("flags", "expected"), [(0x80, None), (0x60, 13)])
def test_a_slice_of_h265_says_whether_it_is_its_pictures_first(flags, expected):
    sps, idr = bytes([33 << 1, 1, 7, 7, 7]), bytes([19 << 1, 1, flags, 9, 9])
    assert rest_at(START + sps + START + idr, "hevc") == expected


@given(st.lists(st.tuples(st.binary(max_size=40), st.booleans()), max_size=20), st.sampled_from(["h264", "hevc"]))
def test_whatever_comes_nothing_raises_and_nothing_but_repeated_headers_is_lost(packets, codec):
    _, whole = joined(packets, codec)
    assert sum(map(len, whole)) <= sum(len(data) for data, _ in packets) + 3 * len(packets)
    assert len(whole) <= len(packets)
    if all(rest_at(data, codec) is None for data, _ in packets):
        assert whole == [data for data, _ in packets]

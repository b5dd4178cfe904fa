"""libavcodec as this server opens it: the damage to H.265 that it notices, and the damage that it does not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.service.errors import InvalidRequestError
from forebay_server.service.frontend.frames.video.access_unit import UnitReader
from forebay_server.service.frontend.frames.video.codec import DamagedUnitError, LibavCodec
from forebay_server.service.frontend.frames.video.slices import SliceLayout
from tests.support.videos import encode

MOST_PIXELS = 1 << 20
KINDS = {
    "one reference": {"params": "ref=1"},
    "four references": {"params": "ref=4"},
    "b-frames": {"bframes": 3, "params": "ref=3"},
    "pyramid": {"bframes": 4, "params": "ref=4:b-pyramid=1"},
    "open groups": {"bframes": 3, "params": "open-gop=1:ref=3"},
    "temporal layers": {"bframes": 3, "params": "temporal-layers=1:b-pyramid=1"},
}


def moving(count):
    """Pictures in which every later one shows parts of earlier ones."""
    noise = np.random.default_rng(2).integers(0, 255, (16, 16 + count, 3), np.uint8)
    windows = [noise[:, index : index + 16] for index in range(count)]
    return [np.ascontiguousarray(np.repeat(np.repeat(window, 8, 0), 8, 1)) for window in windows]


def shown(units):
    """The luma of every picture, by the index of its unit. After a damaged unit a keyframe is waited for."""
    decoder, found, is_whole = LibavCodec("hevc", MOST_PIXELS), {}, True
    for index, unit in units:
        is_whole = is_whole or unit.is_keyframe
        if not is_whole:
            continue
        try:
            pictures = decoder.decode(unit.data, index)
        except DamagedUnitError:
            is_whole, pictures = False, decoder.drain()
        found |= {picture.number: picture.planes[0].copy() for picture in pictures}
    return found | {picture.number: picture.planes[0].copy() for picture in decoder.drain()}


@pytest.mark.parametrize("kind", KINDS)
def test_no_picture_is_shown_that_lacks_one_that_was_lost_before_the_client(kind):
    units = list(enumerate(encode(moving(24), "hevc", gop=12, **KINDS[kind])))
    whole = shown(units)
    assert len(whole) == len(units)
    refused = 0
    for lost in range(1, 22, 3):
        found = shown(units[:lost] + units[lost + 1 :])
        for index, luma in found.items():
            assert np.array_equal(luma, whole[index]), (lost, index)
        refused += len(units) - 1 - len(found)
    assert refused > 0


@pytest.mark.parametrize("kind", ["b-frames", "temporal layers"])
def test_pictures_that_no_other_needs_can_be_left_out(kind):
    units = list(enumerate(encode(moving(24), "hevc", gop=12, **KINDS[kind])))
    reader, whole = UnitReader("hevc"), shown(units)
    needed = [(index, unit) for index, unit in units if reader.read(unit.data).is_reference]
    assert len(needed) < len(units)
    found = shown(needed)
    assert sorted(found) == [index for index, _ in needed]
    assert all(np.array_equal(luma, whole[index]) for index, luma in found.items())


def changed(data, at):
    """A bit changed in the coded pixels, or the unit cut there."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def answers_to_damage(params):
    """How many damaged units of twelve show a wrong picture."""
    units = encode(moving(4), "hevc", gop=4, params=params)
    wrong = 0
    for part in range(12):
        slice_start = units[2].data.index(b"\0\0\1\x02") + 20
        slice_end = units[2].data.find(b"\0\0\1\x50", slice_start) if "hash" in params else len(units[2].data)
        at = slice_start + part * (slice_end - slice_start - 1) // 12
        found = []
        decoder = LibavCodec("hevc", MOST_PIXELS)
        for data in (units[0].data, units[1].data, changed(units[2].data, at)):
            try:
                found = [picture.planes[0].copy() for picture in decoder.decode(data, 0)]
            except DamagedUnitError:
                found = []
        decoder = LibavCodec("hevc", MOST_PIXELS)
        right = [decoder.decode(unit.data, 0)[0].planes[0].copy() for unit in units[:3]][-1]
        wrong += bool(found) and not np.array_equal(found[0], right)
    return wrong


def test_a_changed_bit_is_noticed_where_the_encoder_adds_check_sums():
    assert answers_to_damage("hash=1") == 0


def test_a_cut_unit_is_noticed_where_its_keyframe_has_a_check_sum():
    units = encode(moving(8), "hevc", gop=4, params="hash=1")
    reader = UnitReader("hevc")
    assert all(reader.read(unit.data).has_sum for unit in units[:2])
    for end in range(len(units[2].data) * 2 // 3, len(units[2].data) - 56):
        with pytest.raises(InvalidRequestError, match=r"its end is missing|cut or broken"):
            reader.read(units[2].data[:end])
    assert reader.read(units[3].data).has_sum
    plain = encode(moving(8), "hevc", gop=4)
    assert [reader.read(unit.data).has_sum for unit in plain] == [False] * 8  # from its keyframe on


def test_a_changed_bit_is_not_noticed_without_check_sums():
    """docs/video.md says so. If this fails, libavcodec has learnt to notice it: mend the page."""
    assert answers_to_damage("hash=0") > 3


def in_slices(count, slices):
    """Units of pictures in slices of equal height; x265 needs a thread for them."""
    own = f"log-level=none:keyint=30:bframes=0:ctu=16:min-cu-size=8:slices={slices}:pools=1"
    return encode(moving(count), "hevc", options={"preset": "veryfast", "x265-params": own})


def without_slice(data, index):
    """A unit without one of its slices."""
    parts = data.split(b"\0\0\1")
    slices = [number for number, part in enumerate(parts) if number and part[0] >> 1 & 63 < 32]
    del parts[slices[index]]
    return b"\0\0\1".join(parts)


def test_a_lost_slice_is_noticed_where_pictures_are_divided_alike():
    units = in_slices(8, 4)
    for index in (1, 2, 3):
        reader = UnitReader("hevc")
        places = [reader.read(unit.data).places for unit in units[:4]]
        assert len(places[0]) == 4
        assert len(set(places)) == 1
        with pytest.raises(InvalidRequestError, match="lacks slices"):
            reader.read(without_slice(units[4].data, index))
        assert [reader.read(unit.data).places for unit in units[5:]] == places[:3]


def test_an_encoder_may_divide_pictures_otherwise_from_some_time_on():
    reader, four, two = UnitReader("hevc"), in_slices(4, 4), in_slices(4, 2)
    for unit in four:
        reader.read(unit.data)
    assert set(reader.read(four[3].data).places) > set(UnitReader("hevc").read(two[0].data).places)
    with pytest.raises(InvalidRequestError, match="lacks slices"):
        reader.read(two[0].data)
    assert [len(reader.read(unit.data).places) for unit in two] == [2] * 4


PLACES = st.sampled_from([(0,), (0, 8), (0, 8, 16), (0, 8, 16, 24), (0, 7), (0, 8, 15)])


@given(st.lists(PLACES, max_size=40))
def test_only_parts_of_a_layout_that_came_twice_are_refused_and_none_for_ever(stream):
    layout = SliceLayout()
    for index, places in enumerate(stream):
        before = stream[max(0, index - 2) : index]
        is_alike = len(before) == 2 and before[0] == before[1]
        lacks = layout.lacks_slices(places)
        assert lacks == (is_alike and set(places) < set(before[0]))

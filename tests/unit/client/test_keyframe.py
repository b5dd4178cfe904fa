"""Where the client lets a call begin, a server that has just opened the stream begins to decode."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.client.keyframe import MOST_NAL_UNITS, can_begin_at
from forebay_server.service.frontend.frames.video.access_unit import UnitReader
from forebay_server.service.frontend.frames.video.order import DecodingOrder, Step
from tests.support.videos import clip, mutated, parameter_sets

CODECS = {"h264": "h264", "h265": "hevc"}
SETS = b"\0\0\1\x67\x64\0\0\1\x68\xee"
IDR, OTHER = b"\0\0\1\x65\x88\x84\x21", b"\0\0\1\x41\x9a\x22\x11"
RECOVERY = b"\0\0\1\x06\x06\x01\xc4\x80"


def server_begins_at(unit, codec, sets=b""):
    """Whether a decoder that has seen nothing of the stream takes the unit."""
    reader = UnitReader(codec)
    if sets:
        reader.read_sets(sets)
    found = reader.read(unit.data)
    step = DecodingOrder().judge(found, is_next=True, is_wanted=True)
    return found.sequence is not None and step is not Step.REFUSE


def without_sets(unit, codec):
    sets = parameter_sets(unit, codec).split(b"\0\0\1")[1:]
    parts = [part for part in unit.data.split(b"\0\0\1")[1:] if part.rstrip(b"\0") not in sets]
    return type(unit)(b"".join(b"\0\0\1" + part for part in parts), unit.shown, unit.is_keyframe)


@pytest.mark.parametrize("encoding", CODECS)
@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 3),
        ({"bframes": 2}, 3),
        ({"bframes": 2, "params": "open-gop=1"}, 3),  # keyframes that later pictures may be shown before
        ({"bframes": 2, "params": "open-gop=0"}, 3),
        ({"params": "slices=4"}, 3),
        ({"size": (322, 242)}, 3),
    ],
)
def test_decoding_begins_at_the_units_at_which_the_server_begins(encoding, options, count):
    codec = CODECS[encoding]
    units = clip(25, codec, gop=10, **options)
    sets = parameter_sets(units[0], codec)
    found = [can_begin_at(unit.data, encoding, has_sets=False) for unit in units]
    assert found == [server_begins_at(unit, codec) for unit in units]
    assert sum(found) == count
    bare = [without_sets(unit, codec) for unit in units]
    assert [can_begin_at(unit.data, encoding, has_sets=True) for unit in bare] == found
    assert [server_begins_at(unit, codec, sets) for unit in bare] == found
    assert not any(can_begin_at(unit.data, encoding, has_sets=False) for unit in bare)
    assert not any(server_begins_at(unit, codec) for unit in bare)


def test_a_gradual_refresh_begins_at_its_recovery_points():
    units = clip(45, gop=15, params="intra-refresh=1")
    sets = parameter_sets(units[0])
    found = [can_begin_at(unit.data, "h264", has_sets=True) for unit in units]
    assert found == [server_begins_at(unit, "h264", sets) for unit in units]
    assert sum(found) == 3
    assert sum(b"\0\0\1\x65" in unit.data for unit in units) == 1  # IDR, the first one


@pytest.mark.parametrize(
    ("unit", "begins"),
    [
        (SETS + IDR, True),
        (b"\0" + SETS + IDR, True),
        (IDR, False),
        (SETS, False),
        (SETS + OTHER, False),
        (SETS + OTHER + IDR, False),
        (SETS + RECOVERY + OTHER, True),
        (SETS + b"\0\0\1\x06\x05\xff\x01" + b"x" * 256 + RECOVERY + OTHER, True),
        (SETS + b"\0\0\1\x06\x05\xff" + OTHER, False),
        (SETS + b"\0\0\1\x06" + b"\xff" * 100 + IDR, True),
        (b"\0\0\0\x02\x67\x64\0\0\0\x04" + IDR, False),
        (SETS + b"\0\0\1\x09" * MOST_NAL_UNITS + IDR, False),
        (b"", False),
        (b"\0\0\1", False),
        (b"a JPEG", False),
    ],
)
def test_units_by_hand(unit, begins):
    assert can_begin_at(unit, "h264", has_sets=False) is begins


def test_another_layer_of_h265_begins_nothing():
    sets = b"\0\0\1\x42\x01" + b"\0\0\1\x44\x01"
    assert can_begin_at(sets + b"\0\0\1\x26\x01\xaf", "h265", has_sets=False)
    assert not can_begin_at(sets + b"\0\0\1\x26\x09\xaf", "h265", has_sets=False)
    assert not can_begin_at(sets + b"\0\0\1\x26\x09\xaf" + b"\0\0\1\x02\x01\xd0", "h265", has_sets=False)


def test_other_encodings_have_no_units():
    assert not can_begin_at(SETS + IDR, "jpeg", has_sets=True)


@given(
    data=st.one_of(
        st.binary(max_size=60),
        st.lists(st.sampled_from([b"\0\0\1", b"\x65", b"\x06", b"\x26\x01", b"\xff", b"\x67"])).map(b"".join),
        st.integers(0, 2**32).map(lambda seed: mutated(SETS + RECOVERY + IDR, seed)),
    ),
    has_sets=st.booleans(),
)
def test_any_bytes_have_an_answer(data, has_sets):
    for encoding in CODECS:
        assert can_begin_at(data, encoding, has_sets=has_sets) in {True, False}

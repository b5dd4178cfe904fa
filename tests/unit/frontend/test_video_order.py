"""Access units are decoded, passed by, or refused until a keyframe comes."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.engines.clock import MonotonicClock
from forebay_server.service.errors import OverloadedError, TooManyStreamsError
from forebay_server.service.frontend.frames.video.access_unit import AccessUnit
from forebay_server.service.frontend.frames.video.codecs import VideoCodecs
from forebay_server.service.frontend.frames.video.keyframe_requests import INTERVAL_NS, KeyframeRequests
from forebay_server.service.frontend.frames.video.limits import VideoLimits
from forebay_server.service.frontend.frames.video.order import DecodingOrder, Step
from forebay_server.service.frontend.frames.video.parameter_sets import Sequence

SEQUENCE = Sequence(1280, 720, 1_382_400, 4, 4, 0, frame_num_bits=4)
KEY = AccessUnit(is_keyframe=True, is_reference=True, frame_num=0, sequence=SEQUENCE)


def other(frame_num=None, **fields):
    return AccessUnit(**{"is_reference": True, "frame_num": frame_num, "sequence": SEQUENCE, **fields})


def steps(units, *, is_next=True, is_wanted=True):
    order = DecodingOrder()
    return [order.judge(unit, is_next=is_next, is_wanted=is_wanted) for unit in units]


def test_nothing_is_decoded_before_a_keyframe():
    assert steps([other(), other(), KEY, other()]) == [Step.REFUSE, Step.REFUSE, Step.DECODE, Step.DECODE]


def test_a_gap_in_seq_waits_for_a_keyframe():
    order = DecodingOrder()
    order.judge(KEY, is_next=True, is_wanted=True)
    assert order.judge(other(), is_next=False, is_wanted=True) is Step.REFUSE
    assert order.why == "frames are missing"
    assert order.judge(other(), is_next=True, is_wanted=True) is Step.REFUSE
    assert order.judge(KEY, is_next=False, is_wanted=True) is Step.DECODE


def test_a_gap_in_frame_num_waits_for_a_keyframe():
    assert steps([KEY, other(1), other(2), other(4), KEY]) == [*[Step.DECODE] * 3, Step.REFUSE, Step.DECODE]
    gaps = dataclasses.replace(SEQUENCE, may_have_gaps=True)
    assert steps([KEY, other(1), other(4, sequence=gaps)])[-1] is Step.DECODE


def test_frame_num_goes_round_and_is_shared_by_pictures_that_none_needs():
    numbers = [*range(1, 16), 0, 1]
    assert set(steps([KEY, *map(other, numbers)])) == {Step.DECODE}
    assert set(steps([KEY, other(1), other(2, is_reference=False), other(2, is_reference=False), other(2)])) == {
        Step.DECODE
    }


def test_only_what_no_other_needs_is_passed_by():
    units = [KEY, other(1), other(2, is_reference=False)]
    assert steps(units, is_wanted=False) == [Step.DECODE, Step.DECODE, Step.PASS_BY]
    assert steps(units)[-1] is Step.DECODE


def test_while_decoding_lags_units_that_no_other_needs_are_passed_by_though_they_are_wanted():
    order = DecodingOrder()
    units = [KEY, other(1), other(2, is_reference=False), other(2), KEY]
    found = [order.judge(unit, is_next=True, is_wanted=True, is_lagging=True) for unit in units]
    assert found == [Step.DECODE, Step.DECODE, Step.PASS_BY, Step.DECODE, Step.DECODE]
    assert order.judge(other(1, is_reference=False), is_next=True, is_wanted=True) is Step.DECODE


def test_the_highest_temporal_layer_goes_on_where_it_needs_nothing_that_was_left_out():
    low, high = other(), other(is_highest_layer=True)
    begins, alone = other(is_highest_layer=True, begins_layer=True), other(is_highest_layer=True, is_reference=False)
    lags = [(KEY, False), (high, True), (low, True), (high, False), (low, False), (begins, False), (high, False)]
    order = DecodingOrder()
    found = [order.judge(unit, is_next=True, is_wanted=True, is_lagging=lag) is Step.DECODE for unit, lag in lags]
    assert found == [True, False, True, False, True, True, True]
    lags = [(alone, True), (high, False), (high, True), (KEY, True), (high, False)]
    found = [order.judge(unit, is_next=True, is_wanted=True, is_lagging=lag) is Step.DECODE for unit, lag in lags]
    assert found == [False, True, False, True, True]


PICTURES = st.sampled_from(["key", "low", "high", "high alone", "high begins"])


@given(st.lists(st.tuples(PICTURES, st.booleans(), st.booleans()), max_size=60))
def test_no_picture_is_decoded_that_needs_one_that_was_left_out(stream):
    order, is_layer_whole = DecodingOrder(), True
    order.judge(KEY, is_next=True, is_wanted=True)
    for kind, is_wanted, is_lagging in stream:
        is_high, begins = kind.startswith("high"), kind == "high begins"
        unit = other(is_highest_layer=is_high, begins_layer=begins, is_reference=kind != "high alone")
        unit = KEY if kind == "key" else unit
        is_decoded = order.judge(unit, is_next=True, is_wanted=is_wanted, is_lagging=is_lagging) is Step.DECODE
        assert is_decoded or is_high
        assert not is_decoded or not is_high or is_layer_whole or begins
        if is_decoded:
            is_layer_whole = is_layer_whole or kind == "key" or begins
        elif unit.is_reference:
            is_layer_whole = False
        if not is_lagging and is_wanted and is_layer_whole:
            assert is_decoded


def test_leading_pictures_are_refused_only_where_the_stream_was_joined():
    opening = AccessUnit(is_keyframe=True, may_lead=True, is_reference=True, sequence=SEQUENCE)
    leading = other(is_leading=True)
    found = steps([opening, leading, other(), leading, opening, leading])
    assert found == [Step.DECODE, Step.REFUSE, Step.DECODE, Step.DECODE, Step.DECODE, Step.DECODE]


def test_a_gradual_refresh_is_decoded_and_refused_until_it_is_complete():
    found = steps([other(recovery_units=2), other(), other(), other()])
    assert found == [Step.DECODE_AND_REFUSE, Step.DECODE_AND_REFUSE, Step.DECODE, Step.DECODE]


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), max_size=60))
def test_a_unit_is_decoded_only_if_nothing_is_missing_since_the_latest_keyframe(stream):
    order, is_whole = DecodingOrder(), False
    for is_keyframe, is_next, is_wanted in stream:
        is_whole = is_keyframe or (is_whole and is_next)
        unit = KEY if is_keyframe else other()
        assert (order.judge(unit, is_next=is_next, is_wanted=is_wanted) is Step.DECODE) == is_whole
        assert order.needs_keyframe == (not is_whole)


def test_the_client_is_asked_at_most_once_a_second():
    requests = KeyframeRequests()
    asked = [requests.message(seq, seq * INTERVAL_NS // 4) is not None for seq in range(1, 10)]
    assert asked == [True, False, False, False, True, False, False, False, True]


def test_the_number_of_decoders_and_their_memory():
    limits = VideoLimits(2, 40 << 20, VideoCodecs("cpu", 1 << 20, 2, MonotonicClock()))
    first, second = limits.take(), limits.take()
    with pytest.raises(TooManyStreamsError):
        limits.take()
    first.reserve(SEQUENCE)
    second.reserve(SEQUENCE)
    before = limits.reserved_bytes
    with pytest.raises(OverloadedError, match="smaller pictures"):
        second.reserve(dataclasses.replace(SEQUENCE, references=16, picture_bytes=12 << 20))
    assert limits.reserved_bytes == before
    first.give_back()
    first.give_back()
    assert (limits.streams, limits.reserved_bytes) == (1, before // 2)
    second.give_back()
    assert (limits.streams, limits.reserved_bytes) == (0, 0)

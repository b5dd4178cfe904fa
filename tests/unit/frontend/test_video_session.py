"""A session of video whose decoding lags: every frame is answered once, in order, and later pictures are right."""

import numpy as np
import pytest

from forebay.wire import frames_pb2 as pb
from forebay_server.service.frontend.frames.video.access_unit import UnitReader
from forebay_server.service.frontend.frames.video.lag import PATIENCE_NS
from tests.support.front_end import SessionHarness
from tests.support.videos import clip, level

ENCODINGS = {"h264": pb.ENCODING_H264, "hevc": pb.ENCODING_H265}
BUDGET_MS = 100
MS = 1_000_000
LATE_UNITS = 1 + -(-PATIENCE_NS // (90 * MS))  # each 90 ms after the one before: of the last one the group is given up


def session(codec="h264", **fields):
    fields = {"delivery": pb.DELIVERY_LATEST, "latency_budget_ms": BUDGET_MS, **fields}
    harness = SessionHarness(encoding=ENCODINGS[codec], permits=64, **fields)
    harness.version.is_ordered = False
    return harness


def play(harness, units, waits_ms):
    """Send the units one after the other; each waits for a worker for a time of its own."""
    for seq, (unit, wait_ms) in enumerate(zip(units, waits_ms, strict=True), 1):
        harness.send(seq, payload=unit.data)
        harness.clock.advance(wait_ms * MS)
        harness.settle()
    harness.session.stop_reading()
    harness.settle()
    assert [seq for seq, _ in harness.codes] == list(range(1, len(units) + 1))


def check_pictures(harness, units):
    """Every result that is OK has its own picture."""
    for unit, result in zip(units, harness.results, strict=True):
        if result.status.code == pb.STATUS_OK:
            grey = float(np.frombuffer(result.tensors[0].data, np.uint8).mean())
            assert grey == pytest.approx(level(unit.shown), abs=3)


@pytest.mark.parametrize("codec", ENCODINGS)
def test_while_decoding_lags_pictures_that_no_other_needs_are_left_out(codec):
    units = clip(24, codec, bframes=2, gop=12)
    reader = UnitReader(codec)
    needed = [reader.read(unit.data).is_reference for unit in units]
    assert 0.3 < sum(needed) / len(needed) < 0.7
    harness = session(codec)
    play(harness, units, [0] * 6 + [60] * 12 + [0] * 6)
    check_pictures(harness, units)
    for index, result in enumerate(harness.results):
        is_left_out = 6 <= index < 18 and not needed[index]
        assert ("no other frame needs this one" in result.status.message) == is_left_out, (index, result.status)
        if is_left_out:
            assert result.status.code == pb.STATUS_SUPERSEDED
        elif index < 22:  # the last two are shown together, and the newer one is executed
            assert result.status.code == pb.STATUS_OK, (index, result.status)


@pytest.mark.parametrize("codec", ENCODINGS)
def test_beyond_the_patience_the_rest_of_the_group_is_given_up_and_the_next_one_is_whole(codec):
    units = clip(30, codec, gop=10)
    harness = session(codec)
    play(harness, units, [0] * 3 + [90] * LATE_UNITS + [0] * (27 - LATE_UNITS))
    words = [word for _, word in harness.codes]
    assert words == ["OK"] * (2 + LATE_UNITS) + ["NEEDS_KEYFRAME"] * (8 - LATE_UNITS) + ["OK"] * 20
    check_pictures(harness, units)
    assert "fell behind" in harness.results[2 + LATE_UNITS].status.message


def test_under_overload_a_late_keyframe_is_left_out_and_one_in_time_is_not():
    units = clip(40, gop=10)
    waits_ms = [0] * 3 + [90] * LATE_UNITS + [0] * (7 - LATE_UNITS) + [90] + [0] * 29
    harness = session()
    play(harness, units, waits_ms)
    words = [word for _, word in harness.codes]
    assert words[10:] == ["NEEDS_KEYFRAME"] * 10 + ["OK"] * 20
    check_pictures(harness, units)


def test_an_every_stream_decodes_all_however_long_frames_wait():
    units = clip(24, bframes=2, gop=12)
    harness = session(delivery=pb.DELIVERY_EVERY, latency_budget_ms=60_000)
    play(harness, units, [500] * 24)
    assert {word for _, word in harness.codes} == {"OK"}
    check_pictures(harness, units)

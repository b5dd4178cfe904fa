"""A tracker goes on from its bytes as if nothing had been between; no other bytes are taken."""

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.service.tracks.settings import MAX_TRACKS, TrackSettings
from forebay_server.service.tracks.state import HEADER, MAX_BYTES, RECORD, TrackStateError
from forebay_server.service.tracks.tracker import Tracker
from tests.support.detections import FRAME_NS, S, crowds, frame, tracker_of

TWO = frame((100, 100), (400, 100))


def signed(fields, records):
    """Bytes with a right checksum."""
    body = records.tobytes()
    return HEADER.pack(*fields, zlib.crc32(HEADER.pack(*fields, 0) + body)) + body


def changed(field, value, row=0):
    """The state of two tracks with one value changed."""
    data = tracker_of(*[TWO] * 3)[0].state()
    *fields, _ = HEADER.unpack_from(data)
    records = np.frombuffer(data[HEADER.size :], RECORD).copy()
    records[field][row] = value
    return signed(fields, records)


@given(crowds(), st.data())
def test_a_restored_tracker_goes_on_as_the_uninterrupted_one(frames, data):
    cut = data.draw(st.integers(0, len(frames)))
    tracker, now_ns = Tracker(TrackSettings()), 0
    for index, (elapsed_ns, *detections) in enumerate(frames):
        if index == cut:
            restored = Tracker.restore(tracker.state(), TrackSettings())
        now_ns += elapsed_ns
        ids = tracker.update(now_ns, *detections)
        if index >= cut:
            assert restored.update(now_ns, *detections).tolist() == ids.tolist()
            assert restored.state() == tracker.state()


def test_a_new_tracker_has_a_state_too():
    restored = Tracker.restore(Tracker(TrackSettings()).state(), TrackSettings())
    assert restored.update(5, *TWO).tolist() == [0, 0]


def test_the_gap_of_a_reconnection_is_predicted_through():
    tracker = Tracker(TrackSettings())
    for index in range(20):
        tracker.update(index * FRAME_NS, *frame((100 + 10 * index, 100)))
    restored = Tracker.restore(tracker.state(), TrackSettings())
    assert restored.update(35 * FRAME_NS, *frame((100 + 350, 100))).tolist() == [1]


def test_of_too_many_tracks_those_seen_last_are_kept():
    tracker, _ = tracker_of(*[TWO] * 3, frame((400, 100)))
    restored = Tracker.restore(tracker.state(), TrackSettings(max_tracks=1))
    assert restored.update(4 * FRAME_NS, *TWO).tolist() == [0, 2]


def test_the_state_is_small():
    tracker, _ = tracker_of(*[frame(*((150 * index, 100) for index in range(20)))] * 3)
    assert len(tracker.state()) == 32 + 20 * 72
    assert MAX_BYTES < 75_000


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not one that this service wrote"),
        (b"FBTR", "not one that this service wrote"),
        (b"\0" * 200, "not one that this service wrote"),
        (b"FBTR\x02" + b"\0" * 27, "has version 2, and this service reads 1"),
        (HEADER.pack(b"FBTR", 1, 0, 3, 0, 0, 0, 0), "has 32 bytes, which do not fit its 3 tracks"),
        (HEADER.pack(b"FBTR", 1, 0, 0, 0, 0, 0, 7), "is damaged"),
        (signed((b"FBTR", 1, 1, MAX_TRACKS + 1, 0, 0, 0), np.zeros(MAX_TRACKS + 1, RECORD)), "do not fit its 1025"),
        (signed((b"FBTR", 1, 2, 0, 0, 0, 0), np.zeros(0, RECORD)), "values that no tracker has"),
        (signed((b"FBTR", 1, 0, 0, 5, 0, 0), np.zeros(0, RECORD)), "values that no tracker has"),
        (signed((b"FBTR", 1, 1, 0, 5, -1, 0), np.zeros(0, RECORD)), "values that no tracker has"),
        (signed((b"FBTR", 1, 1, 0, 5, 2 * S, 0), np.zeros(0, RECORD)), "values that no tracker has"),
    ],
)
def test_bytes_of_another_form_are_refused(data, message):
    with pytest.raises(TrackStateError, match=message):
        Tracker.restore(data, TrackSettings())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", 2),  # twice
        ("id", 3),  # never given
        ("class", -1),
        ("unseen_ns", -1),
        ("unseen_ns", 61 * S),
        ("position", (np.nan, 0, 50, 50)),
        ("position", (1e9, 0, 50, 50)),
        ("position", (0, 0, 0, 50)),
        ("position", (0, 0, -50, -50)),
        ("velocity", (np.inf, 0, 0, 0)),
        ("variance", [[0, 0, 1], [1, 0, 1]]),
        ("variance", [[1, 0, -1], [1, 0, 1]]),
        ("variance", [[1, 0, 1], [1, 2, 1]]),
        ("variance", [[1, np.nan, 1], [1, 0, 1]]),
        ("variance", [[1e30, 0, 1], [1, 0, 1]]),
    ],
)
def test_values_that_no_tracker_has_are_refused(field, value):
    with pytest.raises(TrackStateError, match="values that no tracker has"):
        Tracker.restore(changed(field, value), TrackSettings())


@given(st.integers(0, 32 + 2 * 72 - 1), st.integers(1, 255))
def test_any_changed_byte_is_noticed(index, mask):
    data = bytearray(tracker_of(*[TWO] * 3)[0].state())
    data[index] ^= mask
    with pytest.raises(TrackStateError):
        Tracker.restore(bytes(data), TrackSettings())


SIZES = st.sampled_from((1e-6, 1.0, 100.0, 2e7))
NUMBERS = st.sampled_from((0.0, 1e-6, 100.0, 2e7, -2e7))
VELOCITIES = st.sampled_from((0.0, 1e-6, 100.0, 1e12, -1e12))
VARIANCES = st.sampled_from((1e-36, 1e-12, 1.0, 1e6, 1e25))
SHARES = st.sampled_from((-1.0, 0.0, 0.5, 1.0))


@given(
    st.tuples(NUMBERS, NUMBERS, SIZES, SIZES),
    st.tuples(*[VELOCITIES] * 4),
    st.lists(st.tuples(VARIANCES, SHARES, VARIANCES), min_size=2, max_size=2),
    st.sampled_from((0, 1, FRAME_NS, S // 2)),
)
def test_a_forged_state_at_the_limits_is_taken_and_raises_nothing_later(position, velocity, variances, elapsed_ns):
    """An invented state disturbs only the ids of its client."""
    data = tracker_of(*[TWO] * 3)[0].state()
    *fields, _ = HEADER.unpack_from(data)
    records = np.frombuffer(data[HEADER.size :], RECORD).copy()
    records["position"][0], records["velocity"][0] = position, velocity
    records["variance"][0] = [(pp, share * pp**0.5 * vv**0.5, vv) for pp, share, vv in variances]
    tracker = Tracker.restore(signed(fields, records), TrackSettings())
    for index in range(4):
        ids = tracker.update(2 * FRAME_NS + index * elapsed_ns, *TWO)
        assert ids.shape == (2,)
        assert all(np.isfinite(column).all() for column in tracker._state.table.motion)

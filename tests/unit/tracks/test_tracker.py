"""Objects keep their ids, in time and not in frames."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.service.tracks.settings import TrackSettings
from forebay_server.service.tracks.state import MAX_BYTES
from forebay_server.service.tracks.tracker import LARGEST_ID, Tracker
from tests.support.detections import FRAME_NS, S, crowds, frame, hostile_frames, tracker_of


def run(tracker, frames):
    """The ids of every frame, whose times are intervals."""
    now_ns, answers = 0, []
    for elapsed_ns, *detections in frames:
        now_ns += elapsed_ns
        answers.append(tracker.update(now_ns, *detections))
    return answers


def walk(tracker, captures_s, speed=200.0, start=100.0):
    """Show one object that moves to the right with `speed` pixels a second, at these times; return the ids."""
    return [int(tracker.update(round(t * S), *frame((start + speed * t, 300)))[0]) for t in captures_s]


def test_an_object_gets_its_id_when_it_is_seen_again():
    _, first = tracker_of(frame((100, 100)))
    _, second = tracker_of(*[frame((100, 100))] * 2)
    assert (first, second) == ([0], [1])


def test_objects_keep_their_ids_in_any_order():
    _, ids = tracker_of(frame((100, 100), (400, 100)), frame((100, 100), (400, 100)), frame((400, 100), (100, 100)))
    assert ids == [2, 1]


def test_a_gap_of_lost_frames_is_predicted_through():
    tracker = Tracker(TrackSettings())
    times = [index / 30 for index in range(15)] + [0.5 + 0.6 + index / 30 for index in range(3)]
    ids = walk(tracker, times, speed=300.0)  # in the gap it moves 1.8 times its width
    assert set(ids[1:]) == {1}


def test_the_same_frames_as_if_no_time_had_passed_lose_the_object():
    tracker = Tracker(TrackSettings())
    walk(tracker, [index / 30 for index in range(15)], speed=300.0)
    ids = tracker.update(round(0.5 * S), *frame((100 + 300 * 1.1, 300)))
    assert ids.tolist() == [0]


@pytest.mark.parametrize(("gap_s", "ids"), [(0.9, [1]), (1.2, [0])])
def test_a_track_is_kept_for_a_time(gap_s, ids):
    tracker, _ = tracker_of(*[frame((100, 100))] * 5)
    assert tracker.update(4 * FRAME_NS + round(gap_s * S), *frame((100, 100))).tolist() == ids


def test_how_long_a_track_is_kept_does_not_depend_on_the_number_of_frames():
    tracker, _ = tracker_of(*[frame((100, 100))] * 5)
    for index in range(200):
        tracker.update(4 * FRAME_NS + index * S // 250, *frame())
    assert tracker.update(4 * FRAME_NS + round(0.9 * S), *frame((100, 100))).tolist() == [1]


def test_an_ended_track_does_not_give_its_id_to_another():
    tracker, _ = tracker_of(*[frame((100, 100))] * 5)
    answers = [tracker.update(round((5 + index / 30) * S), *frame((100, 100))).tolist() for index in range(3)]
    assert answers == [[0], [2], [2]]


def test_a_low_score_continues_a_track_and_begins_none():
    _, ids = tracker_of(*[frame((100, 100))] * 2, frame((100, 100, 0.2), (500, 100, 0.2)))
    assert ids == [1, 0]
    _, ids = tracker_of(*[frame((100, 100, 0.2))] * 4)
    assert ids == [0]


def test_a_high_score_takes_the_track_before_a_low_one():
    _, ids = tracker_of(*[frame((100, 100))] * 2, frame((100, 100, 0.3), (115, 100, 0.9)))
    assert ids == [0, 1]


def test_classes_are_tracked_apart():
    _, ids = tracker_of(*[frame((100, 100, 0.9, 0))] * 2, frame((100, 100, 0.9, 1)))
    assert ids == [0]
    _, ids = tracker_of(*[frame((100, 100, 0.9, 0), (100, 100, 0.9, 1))] * 3)
    assert sorted(ids) == [1, 2]


def test_people_who_cross_keep_their_ids():
    tracker, ids = Tracker(TrackSettings()), []
    for index in range(60):
        x = 300 * index / 30
        ids = tracker.update(index * FRAME_NS, *frame((100 + x, 300), (700 - x, 360))).tolist()
    assert ids == [1, 2]


def test_a_clock_that_is_set_back_costs_no_id():
    tracker = Tracker(TrackSettings())
    ids = walk(tracker, [index / 30 for index in range(20)])
    for index in range(20, 40):
        x = 100 + 200 * index / 30
        ids += tracker.update((index - 15) * FRAME_NS - 3600 * S, *frame((x, 300))).tolist()
    assert set(ids[1:]) == {1}


def test_frames_of_one_capture_time_keep_their_ids():
    tracker = Tracker(TrackSettings())
    ids = [tracker.update(7, *frame((100, 100), (400, 100))).tolist() for _ in range(4)]
    assert ids == [[0, 0], [1, 2], [1, 2], [1, 2]]


def test_a_jump_by_a_day_ends_all_tracks_and_tracking_goes_on():
    tracker, _ = tracker_of(*[frame((100, 100))] * 3)
    answers = [tracker.update(86_400 * S + index * FRAME_NS, *frame((100, 100))).tolist() for index in range(3)]
    assert answers == [[0], [2], [2]]


def test_a_slow_camera_is_tracked_as_long_as_its_interval_is_kept():
    _, ids = tracker_of(*[frame((100, 100, 0.9))] * 3, frame((100, 100, 0.3)), interval_ns=S)
    assert ids == [1]


def test_a_full_table_begins_no_track():
    tracker, ids = tracker_of(*[frame(*((150 * index, 100) for index in range(10)))] * 3, max_tracks=4)
    assert tracker.track_count == 4
    assert sorted(ids) == [0] * 6 + [1, 2, 3, 4]


def test_the_last_id_is_not_followed_by_another():
    tracker, _ = tracker_of(*[frame((100, 100))] * 2)
    tracker._state.last_id = LARGEST_ID - 1
    both = frame((100, 100), (400, 100), (700, 100))
    ids = [tracker.update((3 + index) * FRAME_NS, *both).tolist() for index in range(4)]
    assert ids[1:] == [[1, LARGEST_ID, 0]] * 3


def test_one_bad_detection_does_not_disturb_the_others():
    bad = frame((100, 100), (400, 100))
    bad[0][1, 2] = np.nan
    _, ids = tracker_of(*[frame((100, 100), (400, 100))] * 3, bad)
    assert ids == [1, 0]


@given(crowds())
def test_ids_are_unique_in_a_frame_rise_and_are_never_used_again(frames):
    tracker, largest, now_ns = Tracker(TrackSettings()), 0, 0
    last_seen_ns = {}
    for elapsed_ns, *detections in frames:
        now_ns += elapsed_ns
        ids = tracker.update(now_ns, *detections)
        given_ids = ids[ids > 0].tolist()
        assert len(set(given_ids)) == len(given_ids)
        for track_id in sorted(given_ids):
            if track_id in last_seen_ns:
                assert now_ns - last_seen_ns[track_id] <= S
            else:
                assert track_id > largest
                largest = track_id
            last_seen_ns[track_id] = now_ns


@given(crowds(), st.integers(0, 2**32 - 1))
def test_the_order_of_the_detections_changes_nothing_but_the_order_of_the_ids(frames, seed):
    chance = np.random.default_rng(seed)
    orders = [chance.permutation(len(scores)) for _, _, scores, _ in frames]
    shuffled = [
        (elapsed_ns, *(array[order] for array in arrays))
        for (elapsed_ns, *arrays), order in zip(frames, orders, strict=True)
    ]
    first, second = run(Tracker(TrackSettings()), frames), run(Tracker(TrackSettings()), shuffled)
    for ids, others, order in zip(first, second, orders, strict=True):
        assert ids[order].tolist() == others.tolist()


@given(crowds(), st.integers(1, 5))
def test_everything_is_bounded(frames, max_tracks):
    tracker = Tracker(TrackSettings(max_tracks=max_tracks))
    run(tracker, frames)
    assert tracker.track_count <= max_tracks
    assert len(tracker.state()) <= MAX_BYTES


@given(crowds(), st.floats(0.001, 1000))
def test_the_unit_of_the_boxes_does_not_matter(frames, factor):
    """Powers of two, so that no rounding differs."""
    factor = np.float32(2.0 ** round(np.log2(factor)))
    scaled = [(elapsed_ns, boxes * factor, *rest) for elapsed_ns, boxes, *rest in frames]
    first, second = run(Tracker(TrackSettings()), frames), run(Tracker(TrackSettings()), scaled)
    assert [ids.tolist() for ids in first] == [ids.tolist() for ids in second]


@given(hostile_frames())
def test_no_value_raises_and_good_frames_work_afterwards(frames):
    tracker = Tracker(TrackSettings())
    for capture_ns, *arrays in frames:
        ids = tracker.update(capture_ns, *arrays)
        assert ids.shape == (len(arrays[1]),)
        assert ((ids >= 0) & (ids <= LARGEST_ID)).all()
        Tracker.restore(tracker.state(), TrackSettings())
    after = [tracker.update(10**12 + index * FRAME_NS, *frame((300, 300)))[0] for index in range(3)]
    assert after[1] > 0
    assert after[1] == after[2]

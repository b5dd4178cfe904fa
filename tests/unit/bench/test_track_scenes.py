"""The generated sequences repeat, lose the asked share of frames, and hold what a tracker has to deal with."""

import numpy as np
import pytest

from forebay_server.bench.track_scenes import HEIGHT, WIDTH, kept_frames, pictures


def test_a_seed_gives_the_same_sequence_and_another_seed_another():
    first, again, other = (pictures(seed, seconds=1.0) for seed in (1, 1, 2))
    assert all(np.array_equal(one.boxes, two.boxes) for one, two in zip(first, again, strict=True))
    assert not np.array_equal(first[0].true_boxes, other[0].true_boxes)


def test_true_boxes_lie_in_the_picture_and_capture_times_rise():
    sequence = pictures(3, seconds=5.0)
    boxes = np.concatenate([picture.true_boxes for picture in sequence])
    assert boxes.min() >= 0
    assert (boxes.max(0) <= (WIDTH, HEIGHT, WIDTH, HEIGHT)).all()
    times_ns = [picture.capture_ns for picture in sequence]
    assert times_ns == sorted(set(times_ns))


def test_people_are_missed_and_things_are_found_that_are_not_there():
    sequence = pictures(4, seconds=10.0)
    true, found = (sum(len(getattr(each, name)) for each in sequence) for name in ("true_ids", "scores"))
    low = sum((picture.scores < 0.5).sum() for picture in sequence)
    assert 0.7 * true < found < 1.3 * true
    assert 0.02 * found < low < 0.5 * found
    assert any(len(picture.scores) < len(picture.true_ids) for picture in sequence)
    assert any(len(picture.scores) > len(picture.true_ids) for picture in sequence)


@pytest.mark.parametrize(("removed", "burst"), [(0.3, 1 / 0.7), (0.6, 2.5), (0.3, 6.0), (0.6, 9.0)])
def test_the_asked_share_of_frames_is_removed_in_gaps_of_the_asked_length(removed, burst):
    kept = kept_frames(5, 100_000, removed, burst)
    gaps = np.diff(kept) - 1
    assert len(kept) == pytest.approx(100_000 * (1 - removed), rel=0.03)
    assert gaps[gaps > 0].mean() == pytest.approx(burst, rel=0.05)


def test_nothing_is_removed_if_nothing_is_asked():
    assert kept_frames(5, 100, 0.0, 1.0).tolist() == list(range(100))

"""The benchmark of tracks gives every row, and time beats frame numbers where frames are missing."""

from forebay_server.bench import tracks
from forebay_server.bench.track_scenes import kept_frames, pictures


def points(sequence, removed, burst, *, is_in_time):
    kept = kept_frames(0, len(sequence), removed, burst)
    return tracks.sequence_score(sequence, kept, is_in_time=is_in_time)


def test_capture_times_beat_frame_numbers_when_frames_are_missing():
    sequence = pictures(0, seconds=8.0)
    whole = points(sequence, 0.0, 1.0, is_in_time=False)
    assert points(sequence, 0.3, 1 / 0.7, is_in_time=True) >= whole + tracks.POINTS_FOR_30
    assert points(sequence, 0.6, 9.0, is_in_time=True) > points(sequence, 0.6, 9.0, is_in_time=False)


def test_a_wanted_difference_is_judged(monkeypatch):
    monkeypatch.setattr(tracks, "scores", lambda seeds: {name: ([60.0], [64.0]) for name in tracks.LOSSES})
    monkeypatch.setattr(tracks, "update_us", lambda objects, repeats: tracks.Spread.of([1.0]))
    judged = {row.what: row.verdict.partition(":")[0] for row in tracks.rows(is_quick=True) if row.budget is not None}
    assert list(judged.values()) == ["met", "met", "missed", "missed"]

"""A wrong setting is refused with its name and its range."""

import pytest

from forebay_server.service.tracks.settings import TrackSettings


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"high_score": 1.5}, "high_score is 1.5: it must be from 0 to 1"),
        ({"low_score": 0.6}, "low_score is 0.6: it must be from 0 to 0.5"),
        ({"new_score": 0.4}, "new_score is 0.4: it must be from 0.5 to 1"),
        ({"keep_s": float("nan")}, "keep_s is nan: it must be from 0 to 60"),
        ({"confirm_s": 61}, "confirm_s is 61: it must be from 0 to 60"),
        ({"max_tracks": 0}, "max_tracks is 0: it must be from 1 to 1024"),
        ({"max_tracks": 5000}, "max_tracks is 5000: it must be from 1 to 1024"),
    ],
)
def test_a_setting_out_of_range_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        TrackSettings(**wrong)


def test_the_defaults_and_the_limits_are_allowed():
    TrackSettings()
    TrackSettings(high_score=0, low_score=0, new_score=0, keep_s=60, confirm_s=0, max_tracks=1024)

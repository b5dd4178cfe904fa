"""The settings of a tracker, with their ranges."""

from dataclasses import dataclass

MAX_TRACKS = 1024
"""Largest `max_tracks`: a full table is 75 KB as bytes, and an update compares every track with every detection."""

LONGEST_KEEP_S = 60
"""Limit of `keep_s`: after a minute a prediction says nothing about a place."""


@dataclass(frozen=True, slots=True)
class TrackSettings:
    """The limits of one tracker. All durations are seconds between capture times.

    Attributes:
        high_score: detections from this score on continue any track.
        low_score: detections from this score on continue a track; lower ones are ignored.
        new_score: detections from this score on begin a new track; at least `high_score`.
        keep_s: a track ends when it was not seen for longer than this.
        confirm_s: a track that was seen once must be seen again within this time, or at the next update.
        max_tracks: limit of tracks at a time, lost ones included; while it is reached no track begins.

    Raises:
        ValueError: a setting out of its range.
    """

    high_score: float = 0.5
    low_score: float = 0.1
    new_score: float = 0.6
    keep_s: float = 1.0
    confirm_s: float = 0.15
    max_tracks: int = 256

    def __post_init__(self) -> None:
        for name, least, most in (
            ("high_score", 0.0, 1.0),
            ("low_score", 0.0, self.high_score),
            ("new_score", self.high_score, 1.0),
            ("keep_s", 0.0, LONGEST_KEEP_S),
            ("confirm_s", 0.0, LONGEST_KEEP_S),
            ("max_tracks", 1, MAX_TRACKS),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                raise ValueError(f"{name} is {value}: it must be from {least:g} to {most:g}")

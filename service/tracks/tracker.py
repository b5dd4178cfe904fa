"""Tracks the objects of one stream."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from forebay_server.service.tracks.assignment import best_pairs, require_library
from forebay_server.service.tracks.detections import Detections, usable
from forebay_server.service.tracks.elapsed import elapsed_ns, usual_interval_ns, within_range
from forebay_server.service.tracks.motion import Floats
from forebay_server.service.tracks.overlap import similarity
from forebay_server.service.tracks.settings import TrackSettings
from forebay_server.service.tracks.state import State, read_state, write_state
from forebay_server.service.tracks.table import NS_PER_S, empty_table

LARGEST_ID = 2**32 - 1
LEAST_HIGH, LEAST_LOW, LEAST_NEW = 0.2, 0.5, 0.3
"""Least similarity of a track with a detection of high score, with one of low score, and of a track without an id.

A low score is often a part of an object or no object at all, so the boxes must agree better. HOTA on generated
sequences (`bench.tracks`) changes by less than 2 points for values from 0.05 to 0.3, 0.3 to 0.6 and 0.15 to 0.5."""
NOT_TRACKED = -1


class Tracker:
    """Gives detections the ids of the objects that they show, in the order in which frames were captured.

    One thread at a time, that of the stream, uses a tracker. Nothing in it grows beyond `settings.max_tracks`.

    Frames that were never detected (superseded, expired, lost) need no call: the next update predicts over the gap.
    Capture times may be wrong. Equal ones count as no time passed. If one is earlier than the one before, the clock was
    set back, and the usual interval counts as passed. A gap of more than `settings.keep_s`, a day as well, ends all
    tracks; ids go on counting.

    Args:
        settings: limits and thresholds.

    Raises:
        TrackingUnavailableError: the extra `track` is not installed.
    """

    def __init__(self, settings: TrackSettings) -> None:
        require_library()
        self._settings = settings
        self._state = State(None, 0, 0, empty_table())

    @classmethod
    def restore(cls, data: bytes, settings: TrackSettings) -> "Tracker":
        """Return a tracker that goes on where another one was when its `state` was taken.

        Args:
            data: as `state` returned it; from a client, hence not trusted.
            settings: may differ from those of the other tracker; of too many tracks those seen last are kept.

        Raises:
            TrackStateError: not the state of a tracker.
            TrackingUnavailableError: as the constructor.
        """
        tracker = cls(settings)
        tracker._state = read_state(data)
        table = tracker._state.table
        if len(table) > settings.max_tracks:
            table.keep(np.sort(np.argsort(table.unseen_ns, kind="stable")[: settings.max_tracks]))
        return tracker

    def state(self) -> bytes:
        """Return the tracks as bytes for `restore`: 32, and 72 a track."""
        return write_state(self._state)

    @property
    def track_count(self) -> int:
        """Number of tracks, with those that are lost or were seen only once."""
        return len(self._state.table)

    def update(
        self,
        capture_ns: int,
        boxes: NDArray[np.floating[Any]],
        scores: NDArray[np.floating[Any]],
        classes: NDArray[np.integer[Any]],
    ) -> NDArray[np.int64]:
        """Return the track id of each detection of a frame, shape (n,): 1 to 2**32 - 1, or 0.

        An id is 0 for a new object, which gets its id when it is seen again; for a low score that continues no track;
        and for a detection that cannot be tracked: coordinates that are not finite or beyond 1e7, an empty box, a score
        outside of 0 to 1, a negative class, more than 1,000 detections. Ids are unique within a frame, rise, and are
        never used again. When all 2**32 - 1 are used up, further objects stay 0.

        Args:
            capture_ns: time at which the frame was captured, by the clock of its camera.
            boxes: x1, y1, x2, y2 in any unit, best in pixels; shape (n, 4). Borrowed for the call, as all arrays.
            scores: shape (n,).
            classes: shape (n,); objects of different classes are tracked apart.

        Raises:
            ValueError: arrays whose shapes do not fit together; values never raise.
        """
        settings = self._settings
        found = usable(boxes, scores, classes, settings.low_score)
        passed_ns = self._read_clock(within_range(capture_ns))
        table = self._state.table
        table.pass_time(passed_ns, round(settings.keep_s * NS_PER_S))
        track_of = self._match(found)
        is_tracked = track_of >= 0
        rows = track_of[is_tracked]
        table.see(rows, found.position[is_tracked])
        self._give_ids(rows)
        ids = np.zeros(len(scores), np.int64)
        ids[found.rows[is_tracked]] = table.ids[rows]
        self._end_and_begin(found, ~is_tracked)
        return ids

    def _read_clock(self, capture_ns: int) -> int:
        """Take a capture time and return the time that passed."""
        state = self._state
        passed_ns = elapsed_ns(state.last_ns, capture_ns, state.usual_ns)
        state.usual_ns = usual_interval_ns(state.last_ns, capture_ns, state.usual_ns)
        state.last_ns = capture_ns
        return passed_ns

    def _match(self, found: Detections) -> NDArray[np.intp]:
        """Return the row of the track that each detection continues, or `NOT_TRACKED`; shape as the detections.

        High scores choose first, so that a part of an object or a false detection does not take its track. Low scores
        then continue the tracks that are left: objects that are being hidden. Tracks without an id come last, so that a
        false detection that was seen once does not take the place of a track that was seen often.
        """
        settings, table = self._settings, self._state.table
        track_of = np.full(len(found.rows), NOT_TRACKED, np.intp)
        if not len(table) or not track_of.size:
            return track_of
        alike = similarity(table.motion, found.position)
        alike[table.classes[:, None] != found.classes] = 0.0
        is_high = found.scores >= np.float32(settings.high_score)
        has_id = table.ids > 0
        _join(track_of, alike, has_id, is_high, LEAST_HIGH)
        _join(track_of, alike, has_id, ~is_high, LEAST_LOW)
        _join(track_of, alike, ~has_id, is_high, LEAST_NEW)
        return track_of

    def _give_ids(self, seen: NDArray[np.intp]) -> None:
        """Give ids to the tracks, of those seen now, that have none: the smallest unused, in the order of the table."""
        state = self._state
        new = np.sort(seen[state.table.ids[seen] == 0])[: LARGEST_ID - state.last_id]
        state.table.ids[new] = state.last_id + 1 + np.arange(len(new))
        state.last_id += len(new)

    def _end_and_begin(self, found: Detections, is_left: NDArray[np.bool_]) -> None:
        """Drop tracks that were not confirmed in time; begin tracks at detections that continue none."""
        settings, table = self._settings, self._state.table
        is_kept = (table.ids > 0) | (table.unseen_ns <= round(settings.confirm_s * NS_PER_S))
        if not is_kept.all():
            table.keep(is_kept)
        may_begin = np.flatnonzero(is_left & (found.scores >= np.float32(settings.new_score)))
        begun = may_begin[: settings.max_tracks - len(table)]
        if begun.size:
            table.append(found.position[begun], found.classes[begun])


def _join(
    track_of: NDArray[np.intp],
    alike: Floats,
    may_track: NDArray[np.bool_],
    may_detection: NDArray[np.bool_],
    least: float,
) -> None:
    """Give detections of a kind to tracks of a kind, of those that are still free; writes to `track_of`."""
    is_free = may_track.copy()
    is_free[track_of[track_of >= 0]] = False
    rows = np.flatnonzero(is_free)
    columns = np.flatnonzero(may_detection & (track_of < 0))
    if rows.size and columns.size:
        pairs = best_pairs(alike[np.ix_(rows, columns)], least)
        track_of[columns[pairs.columns]] = rows[pairs.rows]

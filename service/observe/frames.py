"""Frames as rows of numbers: the columns, their conversion from timelines, and a ring of the latest frames.

The arithmetic equals that of `Timeline.durations_us`, for many frames at once (a test compares the two).
"""

from collections.abc import Sequence
from itertools import chain
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from forebay_server.service.errors import Outcome
from forebay_server.service.journal.events import FrameEvent

STAGES = ("receive", "decode", "queue", "h2d", "execute", "d2h", "deliver", "total")
OUTCOMES = tuple(Outcome)
OK = OUTCOMES.index(Outcome.OK)
_CODES: dict[Outcome | None, int] = {outcome: code for code, outcome in enumerate(OUTCOMES)} | {None: OK}

_INSTANTS = ("received_ns", "validated_ns", "admitted_ns", "readable_ns", "built_ns", "h2d_ns", "execute_ns", "d2h_ns")
_read_instants = attrgetter(*_INSTANTS)
RECEIVED, VALIDATED, ADMITTED, READABLE, BUILT, H2D, EXECUTE, D2H, OUTCOME, STREAM, DEADLINE, CAPTURE, UID = range(13)
SIZE, FOUND = 13, 14  # SIZE: width << SIDE_BITS | height
COLUMNS = 15
SIDE_BITS = 20  # the side of a PNG has at most 1,000,000 pixels
NO_DEADLINE = np.iinfo(np.int64).max
Rows = NDArray[np.int64]


def read_events(events: Sequence[FrameEvent]) -> Rows:
    """Return one column per event, shape (COLUMNS, n)."""
    n = len(events)
    if not n:
        return np.empty((COLUMNS, 0), np.int64)
    records, timelines, outcomes, deadlines, captures, _, sizes, found = zip(*events, strict=True)
    rows = np.empty((COLUMNS, n), np.int64)
    instants = np.fromiter(chain.from_iterable(map(_read_instants, timelines)), np.int64, n * len(_INSTANTS))
    rows[: len(_INSTANTS)] = instants.reshape(n, len(_INSTANTS)).T
    rows[OUTCOME] = [_CODES[outcome] for outcome in outcomes] if any(outcomes) else OK
    rows[STREAM] = [record.index for record in records]
    rows[DEADLINE] = [NO_DEADLINE if deadline is None else deadline for deadline in deadlines]
    rows[CAPTURE] = captures
    rows[UID] = [record.uid for record in records]
    rows[SIZE] = [width << SIDE_BITS | height for width, height in sizes]
    rows[FOUND] = found
    return rows


def durations_us(rows: Rows) -> NDArray[np.int64]:
    """Return the duration of each stage of each frame, shape (len(STAGES), n)."""
    instants = rows[: BUILT + 1] // 1000
    built = instants[BUILT]
    readable = np.where(instants[READABLE], instants[READABLE], built)
    admitted = np.where(instants[ADMITTED], instants[ADMITTED], readable)
    validated = np.where(instants[VALIDATED], instants[VALIDATED], admitted)
    span = readable - admitted
    h2d = np.minimum(rows[H2D] // 1000, span)
    d2h = np.minimum(rows[D2H] // 1000, span - h2d)
    execute = np.minimum(rows[EXECUTE] // 1000, span - h2d - d2h)
    received = instants[RECEIVED]
    durations = np.empty((len(STAGES), rows.shape[1]), np.int64)
    np.subtract(validated, received, out=durations[0])
    np.subtract(admitted, validated, out=durations[1])
    np.subtract(span - h2d - d2h, execute, out=durations[2])
    durations[3:6] = h2d, execute, d2h
    np.subtract(built, readable, out=durations[6])
    np.subtract(built, received, out=durations[7])
    return durations


class FrameRing:
    """The latest frames, oldest first. Owner: the observer.

    Args:
        capacity: frames kept; memory is capacity x COLUMNS x 8 bytes, touched as it fills.
    """

    def __init__(self, capacity: int) -> None:
        self._rows: Rows = np.zeros((COLUMNS, capacity), np.int64)
        self._capacity = capacity
        self._end = 0
        self._count = 0

    def add(self, rows: Rows) -> None:
        """Append frames; when the ring is full, overwrite the oldest."""
        rows = rows[:, -self._capacity :]
        n = rows.shape[1]
        first = min(n, self._capacity - self._end)
        self._rows[:, self._end : self._end + first] = rows[:, :first]
        self._rows[:, : n - first] = rows[:, first:]
        self._end = (self._end + n) % self._capacity
        self._count = min(self._count + n, self._capacity)

    def forget(self, indices: Sequence[int]) -> None:
        """Detach the frames of indices that will be given to other streams."""
        column = self._rows[STREAM]
        column[np.isin(column, indices)] = -1

    def latest(self, count: int | None = None) -> Rows:
        """Return a copy of the latest frames, at most `count`."""
        n = self._count if count is None else min(count, self._count)
        start = self._end - n
        if start >= 0:
            return self._rows[:, start : self._end].copy()
        return np.concatenate((self._rows[:, start:], self._rows[:, : self._end]), axis=1)

    def since(self, since_ns: int, count: int | None = None) -> Rows:
        """Return a copy of the frames whose result was built at `since_ns` or later, at most the latest `count`.

        The frames are in that order here; those of front-end processes by quarters of a second.
        """
        built = self._rows[BUILT]
        start = self._end - self._count
        newer = self._end - int(np.searchsorted(built[max(start, 0) : self._end], since_ns)) - max(start, 0)
        if start < 0 and newer == self._end:
            newer += -start - int(np.searchsorted(built[start:], since_ns))
        return self.latest(newer if count is None else min(count, newer))

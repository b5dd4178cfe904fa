"""The tracks of one stream, as columns."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forebay_server.service.tracks.motion import Floats, Motion, begin, correct, predict

FARTHEST = 2e7
"""Largest coordinate and size of a track, twice that of a detection: a track beyond it has left every picture."""
NS_PER_S = 10**9


@dataclass(slots=True)
class Table:
    """All tracks of a stream, each a row of every column. Owned by one tracker.

    Attributes:
        ids: 0 for a track that was seen only once; shape (n,).
        classes: shape (n,).
        unseen_ns: time since each was last seen; shape (n,).
        motion: estimates, at the time of the last update.
    """

    ids: NDArray[np.uint32]
    classes: NDArray[np.int32]
    unseen_ns: NDArray[np.int64]
    motion: Motion

    def __len__(self) -> int:
        return len(self.ids)

    def keep(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> None:
        """Drop all other rows."""
        self.ids, self.classes, self.unseen_ns = self.ids[rows], self.classes[rows], self.unseen_ns[rows]
        self.motion = self.motion.take(rows)

    def pass_time(self, passed_ns: int, keep_ns: int) -> None:
        """Predict all tracks over a time; drop those that were not seen for longer than `keep_ns`."""
        self.unseen_ns = self.unseen_ns + passed_ns
        if passed_ns:
            self.motion = predict(self.motion, passed_ns / NS_PER_S)
        is_kept = (self.unseen_ns <= keep_ns) & (np.abs(self.motion.position) <= FARTHEST).all(1)
        if not is_kept.all():
            self.keep(is_kept)

    def see(self, rows: NDArray[np.intp], position: Floats) -> None:
        """Correct some tracks, each at most once, by their measured positions, shape (rows, 4)."""
        for column, values in zip(self.motion, correct(self.motion.take(rows), position), strict=True):
            column[rows] = values
        self.unseen_ns[rows] = 0

    def append(self, position: Floats, classes: NDArray[np.int32]) -> None:
        """Add tracks without an id, seen now for the first time."""
        count = len(position)
        self.ids = np.concatenate((self.ids, np.zeros(count, np.uint32)))
        self.classes = np.concatenate((self.classes, classes))
        self.unseen_ns = np.concatenate((self.unseen_ns, np.zeros(count, np.int64)))
        self.motion = self.motion.plus(begin(position))


def empty_table() -> Table:
    """Return a table without tracks."""
    return Table(
        np.empty(0, np.uint32),
        np.empty(0, np.int32),
        np.empty(0, np.int64),
        begin(np.empty((0, 4), np.float32)),
    )

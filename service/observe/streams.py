"""Data about every open stream: counts by outcome, and the age of its results. Owner: the observer.

Age
    `capture_time_us` is on the client's clock, whose offset is unknown. The age of a result is the time from capture to
    result on that clock, minus the time that the quickest frame of the last minute needed from capture to this server:
    waiting in the camera, the network and the server counts, a wrong offset of the clock does not. The constant part of
    the way from camera to server is missing, because the server cannot distinguish it from the clocks' difference.
    Streams without capture times, or whose clock jumps, have no age.
"""

import numpy as np

from forebay_server.service.journal.events import StreamRecord
from forebay_server.service.observe.frames import BUILT, CAPTURE, OUTCOMES, RECEIVED, STREAM, Rows

WINDOW_NS = 30_000_000_000  # the quickest frame is sought in this window and the previous one
MAX_AGE_NS = 60_000_000_000  # a larger age means a clock that jumped
_NEVER = np.iinfo(np.int64).max
_FIRST_SIZE = 64


class StreamTable:
    """See the module. Indices of rows are reused, so that the table grows only with open streams."""

    def __init__(self) -> None:
        self.outcomes = np.zeros((_FIRST_SIZE, len(OUTCOMES)), np.int64)
        self.late = np.zeros(_FIRST_SIZE, np.int64)
        self.models = np.zeros(_FIRST_SIZE, np.int64)
        self.opened_ns = np.zeros(_FIRST_SIZE, np.int64)  # to a tick
        self.uids = np.zeros(_FIRST_SIZE, np.int64)  # of the stream at this index; 0 for none
        self._transit = np.full((2, _FIRST_SIZE), _NEVER, np.int64)  # this window, the previous one
        self._window_ends_ns = 0
        self._records: list[StreamRecord | None] = [None] * _FIRST_SIZE
        self._free = list(range(_FIRST_SIZE - 1, -1, -1))

    def __len__(self) -> int:
        return len(self._records) - len(self._free)

    @property
    def indices(self) -> Rows:
        """The indices of open streams."""
        return np.flatnonzero(self.uids)

    def open(self, record: StreamRecord, model: int, now_ns: int) -> None:
        """Give an index to a stream."""
        if not self._free:
            self._grow()
        index = self._free.pop()
        record.index = index
        self._records[index] = record
        self.models[index] = model
        self.outcomes[index] = 0
        self.opened_ns[index] = now_ns
        self.uids[index] = record.uid
        self.late[index] = 0
        self._transit[:, index] = _NEVER

    def close(self, record: StreamRecord) -> None:
        """Free the index of a stream."""
        self._records[record.index] = None
        self.uids[record.index] = 0
        self._free.append(record.index)
        record.index = -1  # another stream gets it, and later events of this one must not count for that

    def count_of(self, protocol: str, models: int) -> list[int]:
        """Return the number of open streams of a protocol by model, of `models` models."""
        counts = [0] * models
        for index in self.indices.tolist():
            record = self._records[index]
            if record is not None and record.protocol == protocol:
                counts[self.models[index]] += 1
        return counts

    def at(self, index: int) -> StreamRecord | None:
        """Return the stream at an index."""
        return self._records[index] if index >= 0 else None

    def count(self, rows: Rows, is_late: "np.ndarray[tuple[int], np.dtype[np.bool_]]", outcome_row: int) -> None:
        """Count frames; every one has an index."""
        flat = self.outcomes.reshape(-1)
        np.add.at(flat, rows[STREAM] * len(OUTCOMES) + rows[outcome_row], 1)
        if is_late.any():
            np.add.at(self.late, rows[STREAM][is_late], 1)

    def ages_ns(self, rows: Rows, now_ns: int) -> Rows:
        """Learn from frames and return the ages of their results; -1 where there is none. See the module."""
        if now_ns >= self._window_ends_ns:
            self._transit[1] = self._transit[0]
            self._transit[0] = _NEVER
            self._window_ends_ns = now_ns + WINDOW_NS
        indices = rows[STREAM]
        is_stamped = rows[CAPTURE] != 0
        transit = rows[RECEIVED] - rows[CAPTURE] * 1000
        np.minimum.at(self._transit[0], indices[is_stamped], transit[is_stamped])
        return self.known_ages_ns(rows)

    def known_ages_ns(self, rows: Rows) -> Rows:
        """Return the ages of the results of frames; -1 where there is none. Does not learn."""
        least = np.minimum(self._transit[0], self._transit[1])[rows[STREAM]]
        is_known = (rows[CAPTURE] != 0) & (least != _NEVER) & (rows[STREAM] >= 0)
        ages = rows[BUILT] - rows[CAPTURE] * 1000 - np.where(is_known, least, 0)
        return np.where(is_known & (ages >= 0) & (ages <= MAX_AGE_NS), ages, -1)

    def _grow(self) -> None:
        size = len(self._records)
        self.outcomes = np.concatenate((self.outcomes, np.zeros_like(self.outcomes)))
        self.late = np.concatenate((self.late, np.zeros_like(self.late)))
        self.opened_ns = np.concatenate((self.opened_ns, np.zeros_like(self.opened_ns)))
        self.uids = np.concatenate((self.uids, np.zeros_like(self.uids)))
        self.models = np.concatenate((self.models, np.zeros_like(self.models)))
        self._transit = np.concatenate((self._transit, np.full_like(self._transit, _NEVER)), axis=1)
        self._records += [None] * size
        self._free += range(2 * size - 1, size - 1, -1)

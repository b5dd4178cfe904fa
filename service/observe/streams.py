"""Data about every open stream: counts, latest frame, worst latencies, age of results. Owner: the observer.

Age
    `capture_time_us` is on the client's clock, whose offset is unknown. The age of a result is the time from capture to
    result on that clock, minus the time that the quickest frame of the last minute needed from capture to this server:
    waiting in the camera, the network and the server counts, a wrong offset of the clock does not. The constant part of
    the way from camera to server is missing, because the server cannot distinguish it from the clocks' difference.
    Streams without capture times, or whose clock jumps, have no age.
"""

import numpy as np
from numpy.typing import NDArray

from forebay_server.service.journal.events import StreamRecord
from forebay_server.service.observe.frames import BUILT, CAPTURE, OK, OUTCOME, OUTCOMES, RECEIVED, SIZE, STREAM, Rows

WINDOW_NS = 30_000_000_000  # the quickest frame is sought in this window and the previous one
MAX_AGE_NS = 60_000_000_000  # a larger age means a clock that jumped
WORST_SECONDS = 60  # of the line of worst latencies
SILENT_S = 10.0  # a camera is silent after that, or after so many of its usual intervals if that is longer
SILENT_INTERVALS = 5
Seconds = NDArray[np.float64]
_NEVER = np.iinfo(np.int64).max
_FIRST_SIZE = 64


class StreamTable:
    """See the module. Indices of rows are reused, so that the table grows only with open streams.

    Attributes:
        outcomes: frames since the stream opened, by outcome.
        late: of these, OK after the deadline.
        models: index of the stream's model.
        opened_ns: time of opening, to a tick.
        last_ns: when the latest of the frames that have ended was read; 0 for none.
        sizes: width and height of the latest picture, as in the column SIZE; 0 for none.
        uids: of the stream at this index; 0 for none.
    """

    def __init__(self) -> None:
        self.outcomes = np.zeros((_FIRST_SIZE, len(OUTCOMES)), np.int64)
        self.late = np.zeros(_FIRST_SIZE, np.int64)
        self.models = np.zeros(_FIRST_SIZE, np.int64)
        self.opened_ns = np.zeros(_FIRST_SIZE, np.int64)
        self.last_ns = np.zeros(_FIRST_SIZE, np.int64)
        self.sizes = np.zeros(_FIRST_SIZE, np.int64)
        self.uids = np.zeros(_FIRST_SIZE, np.int64)
        self._worst_ns = np.full((WORST_SECONDS + 1, _FIRST_SIZE), -1, np.int64)  # by second, in a ring
        self._second = 0  # row of the present one
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
        self.last_ns[index] = self.sizes[index] = self.late[index] = 0
        self._worst_ns[:, index] = -1
        self.uids[index] = record.uid
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

    def count(self, rows: Rows, is_late: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> None:
        """Count frames; every one has an index."""
        indices = rows[STREAM]
        np.add.at(self.outcomes.reshape(-1), indices * len(OUTCOMES) + rows[OUTCOME], 1)
        if is_late.any():
            np.add.at(self.late, indices[is_late], 1)
        np.maximum.at(self.last_ns, indices, rows[RECEIVED])
        has_size = rows[SIZE] > 0
        self.sizes[indices[has_size]] = rows[SIZE][has_size]  # of several, the last is kept
        latencies = np.where(rows[OUTCOME] == OK, rows[BUILT] - rows[RECEIVED], -1)
        np.maximum.at(self._worst_ns[self._second], indices, latencies)

    def end_second(self) -> None:
        """Begin the next second of the worst latencies."""
        self._second = (self._second + 1) % (WORST_SECONDS + 1)
        self._worst_ns[self._second] = -1

    def worst_ms(self, index: int) -> list[float | None]:
        """Return the largest latency of each of the last whole seconds, oldest first; None where no frame was OK."""
        rows = (self._second + np.arange(-WORST_SECONDS, 0)) % (WORST_SECONDS + 1)
        return _shown_ms(self._worst_ns[rows, index])

    def latest_worst_ms(self) -> list[float | None]:
        """Return the largest latency of the last whole second, by index."""
        return _shown_ms(self._worst_ns[self._second - 1])

    def silences_s(self, now_ns: int) -> tuple[Seconds, "np.ndarray[tuple[int], np.dtype[np.bool_]]"]:
        """Return how long ago the latest frame of each stream was read (or it opened), and whether that is unusual."""
        since_ns = np.maximum(self.last_ns, self.opened_ns)
        silences_s = (now_ns - since_ns) / 1e9
        usual_s = (since_ns - self.opened_ns) / 1e9 / np.maximum(self.outcomes.sum(axis=1), 1)
        is_silent = silences_s > np.maximum(SILENT_S, SILENT_INTERVALS * usual_s)
        return silences_s, is_silent & (self.uids > 0)

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
        self.last_ns = np.concatenate((self.last_ns, np.zeros_like(self.last_ns)))
        self.sizes = np.concatenate((self.sizes, np.zeros_like(self.sizes)))
        self._worst_ns = np.concatenate((self._worst_ns, np.full_like(self._worst_ns, -1)), axis=1)
        self.uids = np.concatenate((self.uids, np.zeros_like(self.uids)))
        self.models = np.concatenate((self.models, np.zeros_like(self.models)))
        self._transit = np.concatenate((self._transit, np.full_like(self._transit, _NEVER)), axis=1)
        self._records += [None] * size
        self._free += range(2 * size - 1, size - 1, -1)


def _shown_ms(latencies_ns: Rows) -> list[float | None]:
    return [None if ns < 0 else round(ns / 1e6, 1) for ns in latencies_ns.tolist()]

"""Counts of one model version, which only rise, and those of its last seconds. Owner: the observer."""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from forebay_server.service.errors import Outcome
from forebay_server.service.journal.events import BatchEvent
from forebay_server.service.observe.frames import OK, OUTCOME, OUTCOMES, STAGES, Rows, durations_us
from forebay_server.service.observe.histograms import Histograms, quantiles

HISTORY_SECONDS = 900
RECENT_SECONDS = 10  # of the rates by outcome and of the busy shares


@dataclass(frozen=True, slots=True)
class Sample:
    """One second of one model. Latencies in ms, from read() to result; None if there was no result.

    Attributes:
        at_s: end of the second on the service's clock.
        ended: frames that ended, of all outcomes: the offered load.
        in_time: OK and before the deadline, or OK without one.
    """

    at_s: int
    ended: int
    in_time: int
    p50_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, slots=True)
class RecentCounts:
    """The last whole seconds of one model.

    Attributes:
        seconds: how many; at least 1.
        outcomes: frames that ended.
        late: OK, but past the deadline.
        busy_ns: device time of h2d, execute and d2h, all lanes together.
    """

    seconds: int
    outcomes: Mapping[Outcome, int]
    late: int
    busy_ns: Sequence[int]


class ModelCounts:
    """Counts of one model version. They only rise."""

    def __init__(self, model: str, version: str) -> None:
        self.model = model
        self.version = version
        self.histograms = Histograms(len(STAGES))
        self.ages = Histograms(1)
        self.outcomes = np.zeros(len(OUTCOMES), np.int64)
        self.late = 0
        self.batches: Counter[int] = Counter()  # by rows
        self.executed_rows = 0
        self.busy_ns = [0, 0, 0]  # h2d, execute, d2h
        self.history: deque[Sample] = deque(maxlen=HISTORY_SECONDS)
        self.last_batches: Counter[int] = Counter()  # of the last whole second
        self.last_busy_ns = [0, 0, 0]
        self._recent: deque[Rows] = deque(maxlen=RECENT_SECONDS)  # by second: outcomes, late, busy_ns
        self._before = self._totals()
        self._totals_us: list[Rows] = []  # of this second
        self._ended = self._in_time = 0
        self._batches_before: Counter[int] = Counter()

    def add(self, rows: Rows, ages_ns: Rows, is_late: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> None:
        """Count frames of this model."""
        outcomes = rows[OUTCOME]
        self.outcomes += np.bincount(outcomes, minlength=len(OUTCOMES))
        is_ok = outcomes == OK
        late = int(np.count_nonzero(is_late))
        ok = int(np.count_nonzero(is_ok))
        self.late += late
        self._ended += rows.shape[1]
        self._in_time += ok - late
        if not ok:
            return
        is_all = ok == rows.shape[1]
        durations = durations_us(rows if is_all else rows[:, is_ok])
        self.histograms.add(durations)
        self.ages.add(ages_ns[is_ok & (ages_ns >= 0)][None] // 1000)
        self._totals_us.append(durations[-1])

    def add_batch(self, batch: BatchEvent) -> None:
        """Count one batch."""
        self.batches[batch.rows] += 1
        self.executed_rows += batch.executed_rows
        self.busy_ns[0] += batch.upload_end_ns - batch.upload_start_ns
        self.busy_ns[1] += batch.execute_end_ns - batch.execute_start_ns
        self.busy_ns[2] += batch.download_end_ns - batch.download_start_ns

    def end_second(self, at_s: int) -> None:
        """Close the current second of the history."""
        p50 = p99 = None
        if self._totals_us:
            p50, p99 = (us / 1e3 for us in quantiles(np.concatenate(self._totals_us), (0.5, 0.99)))
        self.history.append(Sample(at_s, self._ended, self._in_time, p50, p99))
        self._totals_us = []
        self._ended = self._in_time = 0
        self.last_batches, self._batches_before = self.batches - self._batches_before, self.batches.copy()
        totals = self._totals()
        self._recent.append(totals - self._before)
        self._before = totals
        self.last_busy_ns = self._recent[-1][-len(self.busy_ns) :].tolist()

    def recent(self) -> "RecentCounts":
        """Return the counts of the last whole seconds."""
        seconds = len(self._recent)
        sums = (np.sum(self._recent, axis=0) if seconds else np.zeros_like(self._before)).tolist()
        by_outcome = dict(zip(OUTCOMES, sums, strict=False))
        return RecentCounts(max(1, seconds), by_outcome, sums[len(OUTCOMES)], sums[len(OUTCOMES) + 1 :])

    def _totals(self) -> Rows:
        return np.concatenate((self.outcomes, np.array([self.late, *self.busy_ns], np.int64)))

"""The last ten seconds of every stream: rates, latency, age, silence. Computed on request, from the ring of frames."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forebay_server.service.errors import Outcome
from forebay_server.service.journal.events import StreamRecord
from forebay_server.service.observe.camera_diagnosis import SLOW_READER_MS, CameraNumbers
from forebay_server.service.observe.finding import GOOD_SHARE, Rates
from forebay_server.service.observe.frames import (
    BUILT,
    DEADLINE,
    FOUND,
    OK,
    OUTCOME,
    OUTCOMES,
    RECEIVED,
    SIDE_BITS,
    STAGES,
    STREAM,
    Rows,
    durations_us,
)
from forebay_server.service.observe.histograms import grouped_quantiles
from forebay_server.service.observe.observer import Observer
from forebay_server.service.observe.streams import StreamTable

WINDOW_S = 10.0
LEAST_S = 1.0  # minimum divisor for the rate of a stream that has just opened
MAX_FRAMES = 8_192  # on a busier server the window is shorter
CANCELLED = OUTCOMES.index(Outcome.CANCELLED)


@dataclass(frozen=True, slots=True)
class StreamReport:
    """One open stream. Latencies and ages are of frames that ended well, in ms, None if there were none.

    Attributes:
        record: the stream.
        model: index of its model.
        numbers: the basis of its diagnosis.
        p99_ms: from read() to result.
        found: mean number of objects in its results; None if it asks for none.
        silence_s: since its latest frame was read, or since it opened.
        index: its place in the observer's tables.
    """

    record: StreamRecord
    model: int
    numbers: CameraNumbers
    p99_ms: float | None
    found: float | None
    silence_s: float
    index: int


@dataclass(frozen=True, slots=True)
class SlowestStreams:
    """The worst of the open streams, and totals of all.

    Attributes:
        reports: silent ones first, then those with the largest p99.
        count: number of all open streams.
        silent: number of the silent ones.
        rest_ok_per_s: OK frames per second of all streams without a report.
    """

    reports: list[StreamReport]
    count: int
    silent: int
    rest_ok_per_s: float


def recent_rows(observer: Observer, now_ns: int) -> tuple[Rows, float]:
    """Return the frames of the window, and its length in seconds."""
    since_ns = now_ns - int(WINDOW_S * 1e9)
    rows = observer.frames.since(since_ns, MAX_FRAMES)
    if rows.shape[1] < MAX_FRAMES:
        return rows, WINDOW_S
    return rows, max(LEAST_S, (now_ns - int(rows[BUILT].min())) / 1e9)


def stream_reports(
    observer: Observer, now_ns: int, limit: int, window: tuple[Rows, float] | None = None
) -> SlowestStreams:
    """Return the worst of the open streams.

    Args:
        observer: has the streams.
        now_ns: the current time.
        limit: number of streams. The cost of the others is only array arithmetic.
        window: the result of `recent_rows`, if the caller has it already.
    """
    return _Window(observer.streams, now_ns, *(window or recent_rows(observer, now_ns))).reports(limit)


class _Window:
    """The frames of the window, by stream."""

    def __init__(self, table: StreamTable, now_ns: int, rows: Rows, seconds: float) -> None:
        rows = _where(rows, rows[STREAM] >= 0)
        size = len(table.uids)
        self._table = table
        self._rows = rows
        self._ok = _where(rows, rows[OUTCOME] == OK)
        self._seconds = np.clip((now_ns - table.opened_ns) / 1e9, LEAST_S, seconds)
        flat = np.bincount(rows[STREAM] * len(OUTCOMES) + rows[OUTCOME], minlength=size * len(OUTCOMES))
        self._counts = flat.reshape(size, len(OUTCOMES))
        is_late = self._ok[BUILT] > self._ok[DEADLINE]
        self._late = np.bincount(self._ok[STREAM][is_late], minlength=size)
        self._silences_s, self._is_silent = table.silences_s(now_ns)

    def reports(self, limit: int) -> SlowestStreams:
        """Return the streams that need attention most."""
        table, ok = self._table, self._ok
        latencies = grouped_quantiles(ok[STREAM], ok[BUILT] - ok[RECEIVED], (0.5, 0.99))
        slowest = np.zeros(len(table.uids), np.int64)
        slowest[list(latencies)] = [p99 for _, p99 in latencies.values()]
        indices = table.indices
        ranked = indices[np.lexsort((table.uids[indices], -slowest[indices], ~self._is_silent[indices]))]
        top = ranked[:limit].tolist()
        ages = table.known_ages_ns(ok)
        age = grouped_quantiles(ok[STREAM][ages >= 0], ages[ages >= 0], (0.5,))
        stages = self._stages(slowest)
        found = self._found()
        reports = []
        for index in top:
            record = table.at(index)
            assert record is not None  # noqa: S101 - for mypy: its index is in use
            silence_s = float(self._silences_s[index])
            size = int(table.sizes[index])
            numbers = CameraNumbers(
                self._rates(index),
                stages.get(index, {}),
                _ms(latencies.get(index, (None,))[0]),
                _ms(age.get(index, (None,))[0]),
                silence_s if self._is_silent[index] else None,
                bool(table.last_ns[index]),
                (size >> SIDE_BITS, size & (1 << SIDE_BITS) - 1),
                record.origin.budget_ms,
            )
            p99_ms = _ms(latencies.get(index, (None, None))[1])
            model = int(table.models[index])
            reports.append(StreamReport(record, model, numbers, p99_ms, found.get(index), silence_s, index))
        rest = ranked[limit:]
        rest_ok_per_s = float((self._counts[rest, OK] / self._seconds[rest]).sum())
        return SlowestStreams(reports, len(indices), int(self._is_silent.sum()), round(rest_ok_per_s, 2))

    def _rates(self, index: int) -> Rates:
        seconds = float(self._seconds[index])
        counts = self._counts[index].tolist()
        per_s = {outcome: count / seconds for outcome, count in zip(OUTCOMES, counts, strict=True) if count}
        return Rates(per_s, int(self._late[index]) / seconds)

    def _stages(self, p99_ns: NDArray[np.int64]) -> Mapping[int, dict[str, tuple[float, float]]]:
        """Return the stages of streams that are not as they should be: those of the others are not looked at."""
        in_time = self._counts[:, OK] - self._late
        ended = self._counts.sum(axis=1) - self._counts[:, CANCELLED]
        is_wanted = (in_time < GOOD_SHARE * ended) | (p99_ns >= SLOW_READER_MS * 1e6)
        if not is_wanted.any():
            return {}
        rows = _where(self._ok, is_wanted[self._ok[STREAM]])
        stages: dict[int, dict[str, tuple[float, float]]] = {}
        for stage, values in zip(STAGES, durations_us(rows), strict=True):
            for index, (p50, p99) in grouped_quantiles(rows[STREAM], values, (0.5, 0.99)).items():
                stages.setdefault(index, {})[stage] = (p50 / 1e3, p99 / 1e3)
        return stages

    def _found(self) -> dict[int, float]:
        rows = _where(self._ok[[STREAM, FOUND]], self._ok[FOUND] >= 0)
        size = len(self._table.uids)
        counts = np.bincount(rows[0], minlength=size)
        sums = np.bincount(rows[0], rows[1], minlength=size)
        present = np.flatnonzero(counts)
        return dict(zip(present.tolist(), (sums[present] / counts[present]).round(1).tolist(), strict=True))


def _where(rows: Rows, is_wanted: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> Rows:
    """Return the wanted columns; a copy only if there are others."""
    return rows if is_wanted.all() else rows[:, is_wanted]


def _ms(ns: float | None) -> float | None:
    return None if ns is None else round(ns / 1e6, 3)

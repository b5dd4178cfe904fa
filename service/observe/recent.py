"""The last ten seconds of every stream: rate, latency, age. Computed on request, from the ring of frames."""

from dataclasses import dataclass

import numpy as np

from forebay_server.service.journal.events import StreamRecord
from forebay_server.service.observe.frames import BUILT, OK, OUTCOME, OUTCOMES, RECEIVED, STREAM, Rows
from forebay_server.service.observe.histograms import grouped_quantiles
from forebay_server.service.observe.observer import Observer

WINDOW_S = 10.0
LEAST_S = 1.0  # minimum divisor for the rate of a stream that has just opened
MAX_FRAMES = 8_192  # on a busier server the window is shorter


@dataclass(frozen=True, slots=True)
class StreamReport:
    """One open stream. Latencies and ages are of frames that ended well, in ms, None if there were none.

    Attributes:
        record: the stream.
        fps: results per second, of all outcomes.
        p50_ms: from read() to result.
        p99_ms: from read() to result.
        age_ms: median age of results, see `service.observe.streams`.
        outcomes: frames since it opened, by outcome; only those that are not 0.
        late: OK, but past the deadline.
    """

    record: StreamRecord
    fps: float
    p50_ms: float | None
    p99_ms: float | None
    age_ms: float | None
    outcomes: dict[str, int]
    late: int


@dataclass(frozen=True, slots=True)
class SlowestStreams:
    """The slowest of the open streams, and totals of all.

    Attributes:
        reports: of those with the largest p99, slowest first.
        count: number of all open streams.
        rest_fps: results per second of all streams without a report.
    """

    reports: list[StreamReport]
    count: int
    rest_fps: float


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
    """Return the open streams with the largest p99.

    Args:
        observer: has the streams.
        now_ns: the current time.
        limit: number of streams. The cost of the others is only array arithmetic.
        window: the result of `recent_rows`, if the caller has it already.
    """
    rows, seconds = window or recent_rows(observer, now_ns)
    table = observer.streams
    of_open = rows[STREAM] >= 0
    counts = np.bincount(rows[STREAM][of_open], minlength=len(table.uids))
    rates = counts / np.clip((now_ns - table.opened_ns) / 1e9, LEAST_S, seconds)
    is_ok = of_open & (rows[OUTCOME] == OK)
    latencies = grouped_quantiles(rows[STREAM][is_ok], (rows[BUILT] - rows[RECEIVED])[is_ok], (0.5, 0.99))
    slowest = np.zeros(len(table.uids), np.int64)
    slowest[list(latencies)] = [p99 for _, p99 in latencies.values()]
    indices = table.indices
    ranked = indices[np.lexsort((table.uids[indices], -slowest[indices]))]
    top = ranked[:limit].tolist()
    ages = table.known_ages_ns(rows)
    has_age = is_ok & (ages >= 0)
    age = grouped_quantiles(rows[STREAM][has_age], ages[has_age], (0.5,))
    reports = []
    for index in top:
        record = table.at(index)
        assert record is not None  # noqa: S101 - for mypy: its index is in use
        p50, p99 = latencies.get(index, (None, None))
        outcomes = table.outcomes[index].tolist()
        reports.append(
            StreamReport(
                record,
                round(float(rates[index]), 2),
                _ms(p50),
                _ms(p99),
                _ms(age.get(index, (None,))[0]),
                {outcome.value: count for outcome, count in zip(OUTCOMES, outcomes, strict=True) if count},
                int(table.late[index]),
            )
        )
    return SlowestStreams(reports, len(indices), round(float(rates[ranked[limit:]].sum()), 2))


def _ms(ns: float | None) -> float | None:
    return None if ns is None else round(ns / 1e6, 3)

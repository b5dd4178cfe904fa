"""The last ten seconds of every stream: rate, latency, age. Computed when somebody asks, from the ring of frames."""

from dataclasses import dataclass

import numpy as np

from service.observe.frames import BUILT, OK, OUTCOME, OUTCOMES, PLACE, RECEIVED, Rows
from service.observe.histograms import grouped_quantiles
from service.observe.journal import StreamRecord
from service.observe.observer import Observer

WINDOW_S = 10.0
LEAST_S = 1.0  # the rate of a stream that has just opened is over this
MAX_FRAMES = 8_192  # a busier server is judged by fewer seconds


@dataclass(frozen=True, slots=True)
class StreamReport:
    """One open stream. Latencies and ages are of frames that ended well, in ms, None if there were none.

    Attributes:
        record: who it is.
        fps: results per second, of whatever outcome.
        p50_ms: from read() to result.
        p99_ms: likewise.
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


def recent_rows(observer: Observer, now_ns: int) -> tuple[Rows, float]:
    """Return the frames of the window, and how many seconds they cover."""
    since_ns = now_ns - int(WINDOW_S * 1e9)
    rows = observer.frames.since(since_ns, MAX_FRAMES)
    if rows.shape[1] < MAX_FRAMES:
        return rows, WINDOW_S
    return rows, max(LEAST_S, (now_ns - int(rows[BUILT].min())) / 1e9)


def stream_reports(observer: Observer, now_ns: int, window: tuple[Rows, float] | None = None) -> list[StreamReport]:
    """Return a report for every open stream; `window` is what `recent_rows` returned, if it has been asked already."""
    rows, seconds = window or recent_rows(observer, now_ns)
    table = observer.streams
    size = len(table.late)
    open_s = (now_ns - table.opened_ns) / 1e9
    rates = np.bincount(rows[PLACE][rows[PLACE] >= 0], minlength=size) / np.clip(open_s, LEAST_S, seconds)
    ok = rows[:, (rows[OUTCOME] == OK) & (rows[PLACE] >= 0)]
    latencies = grouped_quantiles(ok[PLACE], ok[BUILT] - ok[RECEIVED], (0.5, 0.99))
    ages = table.known_ages_ns(ok)
    age = grouped_quantiles(ok[PLACE][ages >= 0], ages[ages >= 0], (0.5,))
    reports = []
    for record in table:
        place = record.place
        p50, p99 = latencies.get(place, (None, None))
        counts = table.outcomes[place].tolist()
        reports.append(
            StreamReport(
                record,
                round(float(rates[place]), 2),
                _ms(p50),
                _ms(p99),
                _ms(age.get(place, (None,))[0]),
                {outcome.value: count for outcome, count in zip(OUTCOMES, counts, strict=True) if count},
                int(table.late[place]),
            )
        )
    return reports


def _ms(ns: float | None) -> float | None:
    return None if ns is None else round(ns / 1e6, 3)

"""Tables of a report: the run over time, stream by stream, its worst frames. Pure functions over recorded frames."""

from typing import Any

import numpy as np

from forebay_server.loadtest.recorder import Rows
from forebay_server.loadtest.target import Outcome

_MAX_POINTS = 120
_MAX_STREAMS = 1000
MOST_NAMED = 5
_FAILED = (Outcome.FAILED, Outcome.INVALID, Outcome.CANCELLED, Outcome.NEEDS_KEYFRAME)


def timeline(rows: Rows, duration_s: float) -> list[dict[str, Any]]:
    """Return at most 120 stretches of at least a second: rates offered and answered, quantiles of latency."""
    points = max(1, min(_MAX_POINTS, int(duration_s)))
    length_s = max(duration_s, 1e-9) / points
    due = np.clip((rows["intended_ns"] / 1e9 / length_s).astype(np.int64), 0, points - 1)
    is_ok = rows["outcome"] == Outcome.OK
    done = np.clip((rows["done_ns"] / 1e9 / length_s).astype(np.int64), 0, points - 1)
    offered = np.bincount(due, minlength=points)
    answered = np.bincount(done[is_ok], minlength=points)
    table = []
    for point in range(points):
        mine = rows[is_ok & (due == point)]
        latency_ms = (mine["done_ns"] - mine["intended_ns"]) / 1e6
        p50, p99 = np.quantile(latency_ms, [0.5, 0.99]).tolist() if len(mine) else (None, None)
        table.append(
            {
                "t_s": point * length_s,
                "offered_per_s": float(offered[point]) / length_s,
                "answered_per_s": float(answered[point]) / length_s,
                "p50_ms": p50,
                "p99_ms": p99,
                "max_ms": float(latency_ms.max()) if len(mine) else None,
            }
        )
    return table


def by_stream(rows: Rows, cut_s: float) -> list[dict[str, Any]]:
    """Return one line per stream, at most 1,000: counts over the whole run, latencies after the warm-up."""
    order = np.argsort(rows["stream"], kind="stable")
    ordered = rows[order]
    borders = np.flatnonzero(np.diff(ordered["stream"])) + 1
    return [_line(part, cut_s) for part in np.split(ordered, borders)[:_MAX_STREAMS] if len(part)]


def _line(rows: Rows, cut_s: float) -> dict[str, Any]:
    ends = np.bincount(rows["outcome"], minlength=len(Outcome))
    answered = rows[(rows["outcome"] == Outcome.OK) & (rows["intended_ns"] >= cut_s * 1e9)]
    latency_ms = (answered["done_ns"] - answered["intended_ns"]) / 1e6
    p50, p99 = np.quantile(latency_ms, [0.5, 0.99]).tolist() if len(answered) else (None, None)
    return {
        "stream": int(rows["stream"][0]),
        "offered": len(rows),
        "sent": len(rows) - int(ends[Outcome.CLIENT_DROPPED]),
        "answered": int(ends[Outcome.OK]),
        "superseded": int(ends[Outcome.SUPERSEDED]),
        "expired": int(ends[Outcome.EXPIRED]),
        "overloaded": int(ends[Outcome.OVERLOADED]),
        "failed": int(sum(ends[outcome] for outcome in _FAILED)),
        "lost": int(ends[Outcome.LOST]),
        "client_dropped": int(ends[Outcome.CLIENT_DROPPED]),
        "p50_ms": p50,
        "p99_ms": p99,
        "max_ms": float(latency_ms.max()) if len(answered) else None,
        "age_mean_ms": float(answered["age_us"].mean() / 1e3) if len(answered) else None,
    }


def slowest(rows: Rows, cut_s: float) -> list[dict[str, Any]]:
    """Return the answers with the highest latency after the warm-up, the slowest first, at most five."""
    answered = rows[(rows["outcome"] == Outcome.OK) & (rows["intended_ns"] >= cut_s * 1e9)]
    latency_ns = answered["done_ns"] - answered["intended_ns"]
    order = np.argsort(-latency_ns, kind="stable")[:MOST_NAMED]
    return [
        _place(row) | {"latency_ms": float(latency) / 1e6, "service_ms": float(row["done_ns"] - row["sent_ns"]) / 1e6}
        for row, latency in zip(answered[order], latency_ns[order], strict=True)
    ]


def lost_frames(rows: Rows) -> list[dict[str, Any]]:
    """Return the first frames that were sent and never answered, at most five."""
    lost = rows[rows["outcome"] == Outcome.LOST]
    return [_place(row) for row in lost[np.argsort(lost["intended_ns"], kind="stable")[:MOST_NAMED]]]


def _place(row: Any) -> dict[str, Any]:  # noqa: ANN401  # one record of Rows
    return {"stream": int(row["stream"]), "due_s": float(row["intended_ns"]) / 1e9}

"""Converts recorded frames to the numbers of a report. Pure functions over numpy arrays.

Counts and goodput cover the whole run; latencies cover the frames that were due after the warm-up cut. Latency counts
from the intended send time, service time from the actual one, age from the capture. A number that the samples cannot
support is None, with the reason in `doubts`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from forebay_server.loadtest.accounting import Accounting, account, violations
from forebay_server.loadtest.breakdown import breakdown
from forebay_server.loadtest.generator import INTERRUPTED, GeneratorResult
from forebay_server.loadtest.quantiles import (
    Interval,
    block_bootstrap,
    early_stopping_estimate,
    min_samples,
    order_statistics,
    quantile,
    wider,
)
from forebay_server.loadtest.recorder import Counters, Rows
from forebay_server.loadtest.scenario import Scenario
from forebay_server.loadtest.steady import find_steady
from forebay_server.loadtest.target import Outcome

Floats = npt.NDArray[np.float64]
MIN_SAMPLES_FOR_P99 = 100  # with fewer samples the "99th percentile" equals the maximum
QUANTILES = {"p50_ms": 0.5, "p90_ms": 0.9, "p95_ms": 0.95, "p99_ms": 0.99, "p999_ms": 0.999}


@dataclass(slots=True, kw_only=True)
class Merged:
    """The results of all processes of a run, as one."""

    rows: Rows
    counters: Counters
    loop_lag_ms: Floats
    ended_early: str
    offered_for_s: float
    generator_fault: str = ""  # the reason why a part of the run is missing; empty if none is


@dataclass(slots=True, kw_only=True)
class Summary:
    """The numbers of one run.

    `latency_ms`, `service_ms`, `due_s`: of the answered frames after the cut. `doubts`: reasons not to trust p99; empty
    if there are none. `faults`: reasons why the accounting fails; empty if it holds.
    """

    accounting: Accounting
    counters: Counters
    latencies: dict[str, float | None]
    p99_interval: Interval | None
    samples: int
    cut_s: float
    doubts: list[str]
    faults: list[str]
    good: int
    offered_for_s: float
    ended_early: str
    rows: Rows
    latency_ms: Floats
    service_ms: Floats
    due_s: Floats
    stages: dict[str, dict[str, float]] = field(default_factory=dict)


def merge(results: Sequence[GeneratorResult]) -> Merged:
    """Merge the results of several processes."""
    counters = Counters()
    for result in results:
        counters.add(result.counters)
    return Merged(
        rows=np.concatenate([result.rows for result in results]),
        counters=counters,
        loop_lag_ms=np.concatenate([np.asarray(result.loop_lag_ns, np.float64) for result in results]) / 1e6,
        ended_early=next((result.ended_early for result in results if result.ended_early), ""),
        offered_for_s=max(result.offered_for_ns for result in results) / 1e9,
    )


def summarise(scenario: Scenario, run: Merged, good_within_ms: float) -> Summary:
    """Compute all numbers of a run's report.

    Args:
        scenario: the offered load.
        run: the recorded frames and counters.
        good_within_ms: an answer within this latency counts as goodput.
    """
    rows = run.rows
    answered = rows[rows["outcome"] == Outcome.OK]
    latency_ms = (answered["done_ns"] - answered["intended_ns"]) / 1e6
    due_s = answered["intended_ns"] / 1e9
    doubts: list[str] = []
    cut_s = _cut(scenario, run, latency_ms, due_s, doubts)
    kept = due_s >= cut_s
    after, latency_after, due_after = answered[kept], latency_ms[kept], due_s[kept]
    interval = _interval(scenario, latency_after, due_after, doubts)
    latencies = _latencies(after, latency_after)
    latencies["schedule_lag_p99_ms"] = _known(schedule_lag_ms(rows), 0.99)
    latencies["loop_lag_p99_ms"] = _known(run.loop_lag_ms, 0.99)
    latencies["staleness_p99_ms"] = staleness_ms(after, 0.99, run.offered_for_s)
    return Summary(
        accounting=account(rows, run.counters),
        counters=run.counters,
        latencies=latencies,
        p99_interval=interval,
        samples=len(after),
        cut_s=cut_s,
        doubts=doubts,
        faults=[*([run.generator_fault] if run.generator_fault else []), *violations(rows, run.counters)],
        good=int(np.count_nonzero(latency_ms <= good_within_ms)),
        offered_for_s=run.offered_for_s,
        ended_early=run.ended_early,
        rows=rows,
        latency_ms=latency_after,
        service_ms=(after["done_ns"] - after["sent_ns"]) / 1e6,
        due_s=due_after,
        stages=breakdown(after, latency_after),
    )


def schedule_lag_ms(rows: Rows) -> Floats:
    """Return how late the generator itself was with each frame.

    If the queue of the frame's stream was empty, everything up to the write is the generator's own delay; otherwise
    only the part up to the queue is, and the rest is the server holding the stream back.
    """
    left = np.where(rows["was_idle"] & (rows["sent_ns"] >= 0), rows["sent_ns"], rows["fired_ns"])
    return np.asarray((left - rows["intended_ns"]) / 1e6, dtype=np.float64)


def staleness_ms(answered: Rows, share: float, offered_for_s: float) -> float | None:
    """Return the quantile over time of the age of each stream's newest result, at any moment.

    Between two results the age grows with time, so it is a saw-tooth; each tooth is a uniform stretch of ages. The time
    runs from a stream's first result until the end of offering, whether results still come or not.
    """
    end_ns = round(offered_for_s * 1e9)
    lowest, lengths = [], []
    for stream in np.unique(answered["stream"]):
        mine = answered[answered["stream"] == stream]
        mine = mine[np.argsort(mine["done_ns"], kind="stable")]
        newest_ns = np.maximum.accumulate(mine["capture_ns"])
        lowest.append((mine["done_ns"] - newest_ns) / 1e6)
        lengths.append(np.diff(mine["done_ns"], append=max(end_ns, mine["done_ns"][-1])) / 1e6)
    if not lowest or sum(map(len, lengths)) == 0:
        return None
    start, length = np.concatenate(lowest), np.concatenate(lengths)
    wanted = share * float(length.sum())
    low, high = 0.0, float((start + length).max())
    for _ in range(60):
        middle = (low + high) / 2
        if float(np.clip(middle - start, 0, length).sum()) < wanted:
            low = middle
        else:
            high = middle
    return high


def _cut(scenario: Scenario, run: Merged, latency_ms: Floats, due_s: Floats, doubts: list[str]) -> float:
    """Return the warm-up cut; adds to `doubts` if there is no steady state."""
    if len(latency_ms) == 0:
        doubts.append(f"none of {run.counters.sent} frames was answered")
        return 0.0
    if run.ended_early:
        doubts.append("the run was interrupted" if run.ended_early == INTERRUPTED else "the run ended early")
    if scenario.is_shaped:
        doubts.append(f"a {scenario.arrival.value} load changes by design: there is no steady state to measure")
        return 0.0
    steady = find_steady(latency_ms, due_s, run.offered_for_s)
    if steady.reason:
        doubts.append(steady.reason)
    return steady.cut_s


def _interval(scenario: Scenario, latency_ms: Floats, due_s: Floats, doubts: list[str]) -> Interval | None:
    needed = min_samples(0.99)
    if 0 < len(latency_ms) < needed:
        doubts.append(f"{len(latency_ms)} answers after the warm-up are too few for p99: {needed} are needed")
    if doubts:
        return None
    by_time = block_bootstrap(latency_ms, due_s, 0.99, seed=scenario.seed)
    if by_time is None:
        doubts.append("the run is too short for p99: 10 s are needed after the warm-up")
    return wider(order_statistics(latency_ms, 0.99), by_time)


def _latencies(after: Rows, latency_ms: Floats) -> dict[str, float | None]:
    service_ms = (after["done_ns"] - after["sent_ns"]) / 1e6
    age_ms = after["age_us"][after["age_us"] >= 0] / 1e3
    found = {name: _known(latency_ms, share) for name, share in QUANTILES.items()}
    found["mean_ms"] = float(latency_ms.mean()) if len(latency_ms) else None
    found["max_ms"] = float(latency_ms.max()) if len(latency_ms) else None
    found["p99_early_stopping_ms"] = early_stopping_estimate(latency_ms, 0.99)
    found["service_p50_ms"] = _known(service_ms, 0.5)
    found["service_p99_ms"] = _known(service_ms, 0.99)
    found["age_p50_ms"] = _known(age_ms, 0.5)
    found["age_p99_ms"] = _known(age_ms, 0.99)
    return found


def _known(samples: Floats, share: float) -> float | None:
    """Return the quantile, None if there are too few samples for it to differ from the maximum."""
    needed = MIN_SAMPLES_FOR_P99 if share == 0.99 else math.ceil(1 / (1 - share))
    return quantile(samples, share) if len(samples) >= needed else None

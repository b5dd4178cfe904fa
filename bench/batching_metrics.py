"""Numbers of one cell of `forebay bench batching`: latencies, goodput, fairness, and the bound beside them.

The first tenth of the traffic is discarded. Shares are of offered requests; goodput counts results in time; latencies
are of executed requests, from arrival to outputs in host memory.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forebay_server.bench.batching_workloads import SECOND_NS, Executor, Workload

WARM_UP_SHARE = 0.1
BOUND_SPAN = 0.99


@dataclass(frozen=True, slots=True)
class Cell:
    """One workload at one load under one policy; field names are those of the JSON."""

    workload: str
    load: float
    policy: str
    p50_ms: float | None
    p99_ms: float | None
    p999_ms: float | None
    bound_p99_ms: float | None
    goodput_per_s: float
    bound_goodput_per_s: float
    offered_per_s: float
    in_time_share: float
    in_time_share_by_class: dict[str, float]
    late_share: float
    shed_share: float
    mean_batch: float
    jain: float
    worst_stream_share: float
    decide_us: float | None = None
    cpu_us_per_request: float | None = None
    simulated_s_per_s: float | None = None


def evaluate(
    workload: Workload, policy: str, finished_ns: NDArray[np.int64], batch_rows: list[int], **costs: float | None
) -> Cell:
    """Return the numbers of a run.

    Args:
        workload: the offered load.
        policy: its name.
        finished_ns: times of the results, negative for requests that were not executed; shape (n,), int64.
        batch_rows: rows of every batch.
        costs: the optional fields of `Cell`.
    """
    arrivals, budgets = workload.arrivals_ns, workload.budgets_ns
    first_ns = int(WARM_UP_SHARE * workload.duration_ns)
    counted = arrivals >= first_ns
    offered = int(counted.sum())
    span_s = (workload.duration_ns - first_ns) / SECOND_NS
    is_executed = counted & (finished_ns >= 0)
    is_in_time = is_executed & (finished_ns <= arrivals + budgets)
    latencies_ms = (finished_ns - arrivals)[is_executed] / 1e6
    p50, p99, p999 = np.percentile(latencies_ms, [50, 99, 99.9]).tolist() if latencies_ms.size else [None] * 3
    jain, worst = _fairness(workload.streams, counted, is_in_time)
    return Cell(
        workload=workload.name,
        load=workload.load,
        policy=policy,
        p50_ms=p50,
        p99_ms=p99,
        p999_ms=p999,
        bound_p99_ms=bound_p99_ms(workload),
        goodput_per_s=float(is_in_time.sum() / span_s),
        bound_goodput_per_s=float(min(offered / span_s, workload.executor.capacity_per_ns * SECOND_NS)),
        offered_per_s=offered / span_s,
        in_time_share=float(is_in_time.sum() / offered),
        in_time_share_by_class={
            f"{budget_ns / 1e6:g}ms": float(is_in_time[budgets == budget_ns].sum() / of_class)
            for budget_ns in np.unique(budgets).tolist()
            if (of_class := int((counted & (budgets == budget_ns)).sum()))
        },
        late_share=float((is_executed & ~is_in_time).sum() / offered),
        shed_share=float((counted & (finished_ns < 0)).sum() / offered),
        mean_batch=float(np.mean(batch_rows)) if batch_rows else 0.0,
        jain=jain,
        worst_stream_share=worst,
        **costs,
    )


def _fairness(
    streams: NDArray[np.int64], counted: NDArray[np.bool_], is_in_time: NDArray[np.bool_]
) -> tuple[float, float]:
    """Return Jain's index over the streams' in-time shares, and the smallest of these shares."""
    offered = np.bincount(streams[counted])
    good = np.bincount(streams[is_in_time], minlength=len(offered))
    shares = good[offered > 0] / offered[offered > 0]
    squares = float((shares**2).sum())
    jain = float(shares.sum() ** 2 / (len(shares) * squares)) if squares > 0 else 0.0
    return jain, float(shares.min())


def bound_p99_ms(workload: Workload) -> float | None:
    """Return the least p99 that any policy can have, were arrivals perfectly smooth; None where none is finite.

    At rate r an executor that is always busy settles at batches of b = r*alpha / (1 - r*beta); the first row of such a
    batch waits (b - 1) / r for the last, and then for the three stages.
    """
    executor = workload.executor
    costs, rate = executor.costs, workload.load * executor.capacity_per_ns
    if rate * costs.beta_ns >= 1.0:
        return None
    rows = max(1.0, rate * costs.alpha_ns / (1.0 - rate * costs.beta_ns))
    if rows > executor.max_batch_size * (1.0 + 1e-9):
        return None
    stages: Callable[[tuple[int, int]], float] = lambda pair: pair[0] + pair[1] * rows  # noqa: E731 - one line, twice
    execute_ns = costs.alpha_ns + costs.beta_ns * rows
    gather_ns = BOUND_SPAN * (rows - 1.0) / rate
    return (stages(costs.h2d_ns) + execute_ns + stages(costs.d2h_ns) + gather_ns) / 1e6


def capacity_per_s(executor: Executor) -> float:
    """Return the most rows per second that an executor can do."""
    return executor.capacity_per_ns * SECOND_NS

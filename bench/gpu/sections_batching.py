"""The batching workloads with the real former, on an executor with the measured costs of this GPU.

In virtual time a request is one row. In real time sender, former and executor share one interpreter, which 7,600 to
11,400 requests a second fill: such a run measures Python and is void. There a request holds ROWS_PER_REQUEST rows, as
one from a gateway for as many cameras does: the same rows on the same cost curve in a quarter of the requests. Both
clocks run that workload, so that they can be compared; the rule that voids a run stays the same.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from forebay_server.bench import batching_workloads
from forebay_server.bench.batching import BatchingBenchOptions, run_batching_bench
from forebay_server.bench.gpu.plan import MAX_ROWS, Plan
from forebay_server.bench.gpu.sections_local import lanes
from forebay_server.bench.virtual_lane import StageCosts

POLICIES = ("jit_edf", "eager", "window")
CELLS = (("cameras", 0.9), ("poisson", 0.8), ("mixed", 1.0), ("poisson", 1.2))
KEPT = ("workload", "load", "policy", "p50_ms", "p99_ms", "goodput_per_s", "in_time_share", "mean_batch", "is_void",
        "timer_lag_p99_ms", "runs")  # fmt: skip
ROWS_PER_REQUEST = 4


def fit(lanes: list[dict[str, Any]], network: str) -> StageCosts:
    """Fit fixed and per-row nanoseconds of each stage to the measurements of the section `lanes`."""
    cells = [cell for cell in lanes if cell["network"] == network]
    rows = [cell["rows"] for cell in cells]

    def line(name: str) -> tuple[int, int]:
        slope, start = np.polyfit(rows, [cell["lane"][name] * 1e6 for cell in cells], 1)
        return max(1, int(start)), max(1, int(slope))

    alpha_ns, beta_ns = line("execute_ms")
    return StageCosts(alpha_ns, beta_ns, line("h2d_ms"), line("d2h_ms"))


def of_requests(costs: StageCosts, rows: int) -> StageCosts:
    """Return what a batch costs by its number of requests of `rows` rows each."""
    return StageCosts(
        costs.alpha_ns,
        costs.beta_ns * rows,
        (costs.h2d_ns[0], costs.h2d_ns[1] * rows),
        (costs.d2h_ns[0], costs.d2h_ns[1] * rows),
        costs.jitter,
    )


def batching(plan: Plan) -> Iterator[dict[str, Any]]:
    """Run some cells under three policies, at the costs of the FP32 detector."""
    costs = fit(_lanes_of_detector(plan), "detector")
    if plan.device == "cpu":  # dry: a CPU's own curve leaves hardly a request in a trace of this length
        costs = batching_workloads.GPU.costs
    single = batching_workloads.Executor(costs, MAX_ROWS)
    several = batching_workloads.Executor(of_requests(costs, ROWS_PER_REQUEST), MAX_ROWS // ROWS_PER_REQUEST)
    yield {"alpha_ms": costs.alpha_ns / 1e6, "beta_ms": costs.beta_ns / 1e6, "h2d_ns": costs.h2d_ns,
           "d2h_ns": costs.d2h_ns, "capacity_per_s": single.capacity_per_ns * 1e9}  # fmt: skip
    for executor, rows, is_real in ((single, 1, False), (several, ROWS_PER_REQUEST, False),
                                    (several, ROWS_PER_REQUEST, True)):  # fmt: skip
        for kind, load in CELLS:
            for cell in _cells(plan, executor, kind, load, is_real=is_real):
                kept = {name: cell[name] for name in KEPT if name in cell}
                yield {"is_real": is_real, "rows_per_request": rows} | kept


def _lanes_of_detector(plan: Plan) -> list[dict[str, Any]]:
    """Return what the section `lanes` found in the same folder, or measure the detector now."""
    path = plan.out / "lanes.json"
    if path.is_file():
        found: list[dict[str, Any]] = json.loads(path.read_text())
        return found
    return list(lanes(replace(plan, networks=("detector",))))


def _cells(
    plan: Plan, executor: batching_workloads.Executor, kind: str, load: float, *, is_real: bool
) -> list[dict[str, Any]]:
    """Run the policies of one cell. The workloads take their executor from their module."""
    before, batching_workloads.GPU = batching_workloads.GPU, executor
    try:
        options = BatchingBenchOptions(
            is_real=is_real,
            workloads=(kind,),
            loads=(load,),
            policies=POLICIES,
            seconds=plan.batching_seconds,
            runs=plan.batching_runs,
            is_decide_measured=False,
        )
        results: list[dict[str, Any]] = run_batching_bench(options, out=lambda _: None)["results"]
        return results
    finally:
        batching_workloads.GPU = before

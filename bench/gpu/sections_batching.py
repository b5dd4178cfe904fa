"""The batching workloads with the real former, on an executor that costs what this GPU was measured to cost."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from bench import batching_workloads
from bench.batching import BatchingBenchOptions, run_batching_bench
from bench.gpu.plan import Plan
from bench.virtual_lane import StageCosts

POLICIES = ("jit_edf", "eager", "window")
CELLS = (("cameras", 0.9), ("poisson", 0.8), ("mixed", 1.0), ("poisson", 1.2))
KEPT = ("workload", "load", "policy", "p50_ms", "p99_ms", "goodput_per_s", "in_time_share", "mean_batch", "is_void",
        "timer_lag_p99_ms")  # fmt: skip


def fit(lanes: list[dict[str, Any]], network: str) -> StageCosts:
    """Fit fixed and per-row nanoseconds of each stage to what the section `lanes` measured."""
    cells = [cell for cell in lanes if cell["network"] == network]
    rows = [cell["rows"] for cell in cells]

    def line(name: str) -> tuple[int, int]:
        slope, start = np.polyfit(rows, [cell["lane"][name] * 1e6 for cell in cells], 1)
        return max(1, int(start)), max(1, int(slope))

    alpha_ns, beta_ns = line("execute_ms")
    return StageCosts(alpha_ns, beta_ns, line("h2d_ms"), line("d2h_ms"))


def batching(plan: Plan) -> Iterator[dict[str, Any]]:
    """Run some cells with real threads under three policies, at the costs of the FP32 detector."""
    costs = fit(json.loads((plan.out / "lanes.json").read_text()), "detector")
    batching_workloads.GPU = batching_workloads.Executor(costs, 32)
    yield {"alpha_ms": costs.alpha_ns / 1e6, "beta_ms": costs.beta_ns / 1e6, "h2d_ns": costs.h2d_ns,
           "d2h_ns": costs.d2h_ns, "capacity_per_s": batching_workloads.GPU.capacity_per_ns * 1e9}  # fmt: skip
    for is_real in (False, True):
        for kind, load in CELLS:
            options = BatchingBenchOptions(
                is_real=is_real,
                workloads=(kind,),
                loads=(load,),
                policies=POLICIES,
                seconds=plan.load_seconds,
                runs=1,
                is_decide_measured=False,
            )
            report = run_batching_bench(options, out=lambda _: None)
            for cell in report["results"]:
                yield {"is_real": is_real} | {name: cell[name] for name in KEPT if name in cell}

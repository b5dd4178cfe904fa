"""The batching workloads at a GPU's costs: requests of several rows are the same rows on the same curve."""

import pytest

from forebay_server.bench import batching_workloads
from forebay_server.bench.batching_workloads import Executor
from forebay_server.bench.gpu.plan import Plan
from forebay_server.bench.gpu.sections_batching import ROWS_PER_REQUEST, fit, of_requests
from forebay_server.bench.gpu.sections_batching import _cells as cells_of
from forebay_server.bench.virtual_lane import StageCosts

COSTS = StageCosts(400_000, 92_000, (21_000, 16_000), (12_000, 1_500))


def test_requests_of_several_rows_cost_what_their_rows_cost():
    single = Executor(COSTS, 32)
    several = Executor(of_requests(COSTS, ROWS_PER_REQUEST), 32 // ROWS_PER_REQUEST)
    assert several.capacity_per_ns * ROWS_PER_REQUEST == pytest.approx(single.capacity_per_ns)


def test_costs_are_fitted_to_what_lanes_took():
    lanes = [
        {"network": network, "rows": rows, "lane": {"execute_ms": a + b * rows, "h2d_ms": 0.1, "d2h_ms": 0.05}}
        for network, a, b in (("detector", 0.4, 0.09), ("resnet50", 9.0, 9.0))
        for rows in (1, 8, 32)
    ]
    costs = fit(lanes, "detector")
    assert (costs.alpha_ns, costs.beta_ns) == pytest.approx((400_000, 90_000), rel=1e-3)


def test_a_cell_runs_every_policy_on_the_given_executor_and_gives_the_usual_one_back(tmp_path):
    before = batching_workloads.GPU
    several = Executor(of_requests(COSTS, ROWS_PER_REQUEST), 32 // ROWS_PER_REQUEST)
    cells = cells_of(Plan.dry("cpu", tmp_path, tmp_path), several, "poisson", 0.8, is_real=False)
    assert [cell["policy"] for cell in cells] == ["jit_edf", "eager", "window"]
    assert all(cell["in_time_share"] == 1.0 for cell in cells)
    assert all(cell["goodput_per_s"] == pytest.approx(0.8 * several.capacity_per_ns * 1e9, rel=0.1) for cell in cells)
    assert batching_workloads.GPU is before

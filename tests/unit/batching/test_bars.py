"""The bench's numbers against their bars: fails when one gets worse."""

import dataclasses
import json

import pytest

from forebay_server.bench.batching import BatchingBenchOptions, run_batching_bench
from forebay_server.bench.batching_bars import Bar, judge, load_bars
from forebay_server.bench.batching_metrics import bound_p99_ms
from forebay_server.bench.batching_workloads import KINDS, cameras, poisson

JSON_FIELDS = {
    "workload", "load", "policy", "p50_ms", "p99_ms", "p999_ms", "bound_p99_ms", "goodput_per_s",
    "bound_goodput_per_s", "in_time_share", "in_time_share_by_class", "late_share", "shed_share", "mean_batch", "jain",
    "worst_stream_share",
}  # fmt: skip
CELLS = sorted({(bar.workload, bar.load) for bar in load_bars() if bar.workload != "decide"})


def run(**options):
    lines = []
    report = run_batching_bench(BatchingBenchOptions(**options), lines.append)
    return report, lines


@pytest.mark.slow
@pytest.mark.parametrize(("workload", "load"), CELLS)
def test_former_meets_the_bars_of(workload, load):
    report, _ = run(workloads=(workload,), loads=(load,), policies=("jit_edf",), is_decide_measured=False)
    verdicts = [bar for bar in report["bars"] if bar["workload"] == workload]
    assert verdicts
    assert [v for v in verdicts if not v["is_met"]] == []


@pytest.mark.slow
def test_18_decision_costs_less_than_its_bars():
    report, _ = run(workloads=("cpu",), loads=(0.3,), policies=("jit_edf",), seconds=2.0)
    verdicts = [bar for bar in report["bars"] if bar["workload"] == "decide"]
    assert len(verdicts) == 2
    assert [v for v in verdicts if not v["is_met"]] == []


def test_json_holds_what_is_promised_and_nothing_else_is_printed(tmp_path):
    report, lines = run(
        is_json=True, workloads=("mixed",), loads=(0.7,), seconds=0.5, is_decide_measured=False, plots=tmp_path
    )
    assert len(lines) == 1
    assert json.loads(lines[0]) == json.loads(json.dumps(report))
    results = report["results"]
    assert [cell["policy"] for cell in results] == ["jit_edf", "eager", "window", "preferred"]
    assert all(set(cell) >= JSON_FIELDS for cell in results)
    assert set(results[0]["in_time_share_by_class"]) == {"33ms", "200ms"}
    assert {path.suffix for path in tmp_path.iterdir()} == {".svg"}


def test_table_has_a_line_per_cell():
    _, lines = run(workloads=("cpu",), loads=(0.5, 0.7), policies=("eager",), seconds=1.0, is_decide_measured=False)
    assert len(lines) == 3


@pytest.mark.parametrize(
    "options", [{"workloads": ("cats",)}, {"policies": ("fifo",)}, {"seconds": 0}, {"loads": (-1.0,)}, {"runs": 0}]
)
def test_option_that_makes_no_sense_is_an_error(options):
    with pytest.raises(ValueError, match=r"unknown|must be"):
        BatchingBenchOptions(**options)


def test_a_number_worse_than_its_bar_is_found():
    cell = {"workload": "poisson", "load": 0.8, "policy": "jit_edf", "p99_ms": 20.0, "classes": {"33ms": 0.5}}
    bars = [
        Bar("poisson", 0.8, "p99_ms", at_most=19.5),
        Bar("poisson", 0.8, "classes.33ms", at_least=0.5),
        Bar("poisson", 0.8, "gone", at_least=0.5),
        Bar("cameras", 0.8, "p99_ms", at_most=19.5),
    ]
    assert [verdict.is_met for verdict in judge([cell], None, bars)] == [False, True, False]


def test_traces_are_sorted_seeded_and_of_the_rate_asked_for():
    for make, loads in KINDS.values():
        first, again, other = make(loads[0], 2.0, 1), make(loads[0], 2.0, 1), make(loads[0], 2.0, 2)
        assert (first.arrivals_ns[1:] >= first.arrivals_ns[:-1]).all()
        assert (first.arrivals_ns == again.arrivals_ns).all()
        assert len(first.arrivals_ns) != len(other.arrivals_ns) or (first.arrivals_ns != other.arrivals_ns).any()
    offered = len(poisson(0.5, 10.0, 1).arrivals_ns) / 10.0
    assert offered == pytest.approx(0.5 * 3404, rel=0.03)


def test_bound_is_the_published_one():
    assert bound_p99_ms(cameras(0.9, 0.1, 1)) == pytest.approx(16.55, abs=0.05)
    assert bound_p99_ms(cameras(1.5, 0.1, 1)) is None
    assert dataclasses.is_dataclass(BatchingBenchOptions)

"""The file of costs: a written file is read back, and all else is refused with the reason."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.bench.plan.costs import CostsError, FrameCosts, PlanCosts, read_costs
from forebay_server.bench.plan.real_runs import RealRun, RealRuns
from tests.support.plans import costs_of

RUNS = RealRuns(
    fps=10.0,
    budget_ms=100.0,
    delivery="latest",
    p99_ms=100.0,
    dropped_share=0.01,
    promised=20,
    runs=(RealRun(20, False, 1000, 0.2, 99.0, 5.0), RealRun(17, True, 850, 0.0, None, 5.0, 0.1, "late")),
)


def test_costs_come_back_as_they_were():
    assert PlanCosts.from_json(costs_of().to_json()) == costs_of()
    changing = dataclasses.replace(costs_of(), speeds=(0.9, 1.1))
    assert PlanCosts.from_json(changing.to_json()) == changing
    tried = dataclasses.replace(costs_of(), slowdown=1.25, real=RUNS)
    assert PlanCosts.from_json(tried.to_json()) == tried


def test_a_file_from_before_the_real_runs_has_no_slowdown():
    data = json.loads(costs_of().to_json())
    del data["slowdown"], data["real"]
    costs = PlanCosts.from_json(json.dumps(data))
    assert (costs.slowdown, costs.real) == (1.0, None)


@pytest.mark.parametrize(
    "real",
    [
        "x",
        [],
        {"runs": []},
        {**dataclasses.asdict(RUNS), "runs": [{"cameras": 3}]},
        {**dataclasses.asdict(RUNS), "x": 1},
        {**dataclasses.asdict(RUNS), "promised": "x"},
        {**dataclasses.asdict(RUNS), "fps": -1.0},
        {**dataclasses.asdict(RUNS), "runs": [{**dataclasses.asdict(RUNS.runs[0]), "p99_ms": "x"}]},
    ],
)
def test_runs_that_are_none_are_refused(real):
    with pytest.raises(CostsError, match="cannot be read"):
        PlanCosts.from_json(json.dumps({**json.loads(costs_of().to_json()), "real": real}))


def test_a_slowdown_is_in_every_time_and_in_none_twice():
    costs = dataclasses.replace(costs_of(), slowdown=1.5)
    slowed = costs.slowed()
    assert slowed.table.execute_ns == tuple(ns * 3 // 2 for ns in costs.table.execute_ns)
    assert dataclasses.astuple(slowed.frame) == tuple(ns * 3 // 2 for ns in dataclasses.astuple(costs.frame))
    assert slowed.slowed() == slowed
    assert costs_of().slowed() == costs_of()


KEYS = st.sampled_from(("format", "table", "frame", "cores", "x"))
VALUES = st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(KEYS, x))


@given(st.text(max_size=200) | VALUES.map(json.dumps))
def test_anything_else_is_refused(text):
    with pytest.raises(CostsError):
        PlanCosts.from_json(text)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scatter", 3.0),
        ("scatter", float("nan")),
        ("instances", 0),
        ("strands", -1),
        ("cores", 0),
        ("instances", 1.5),
        ("instances", 10**9),
        ("strands", "2"),
        ("cores", True),
        ("width", "x"),
        ("frame_bytes", None),
        ("model", 5),
        ("encoding", []),
        ("slowdown", True),
        ("slowdown", "1.2"),
        ("others_cores", None),
        ("executed_sizes", ()),
        ("executed_sizes", (0,)),
        ("executed_sizes", (1.5,)),
        ("executed_sizes", ("a",)),
        ("executed_sizes", (2, 1)),
        ("speeds", (1.0, 0.0)),
        ("slowdown", 0.1),
        ("slowdown", float("nan")),
    ],
)
def test_numbers_that_cannot_be_are_refused(name, value):
    with pytest.raises(CostsError):
        dataclasses.replace(costs_of(), **{name: value})


def test_negative_times_are_refused():
    with pytest.raises(CostsError, match="loop_ns"):
        FrameCosts(0, -1, 0, 0, 0)


def test_a_file_that_is_none_is_named_with_what_writes_one(tmp_path):
    path = tmp_path / "costs.json"
    path.write_text("{}")
    with pytest.raises(CostsError, match=r"costs\.json is no file of costs.*--save"):
        read_costs(path)
    with pytest.raises(CostsError, match=r"cannot read .*missing"):
        read_costs(tmp_path / "missing")

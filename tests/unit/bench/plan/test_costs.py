"""The file of costs: a written file is read back, and all else is refused with the reason."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay_server.bench.plan.costs import CostsError, FrameCosts, PlanCosts, read_costs
from tests.support.plans import costs_of


def test_costs_come_back_as_they_were():
    assert PlanCosts.from_json(costs_of().to_json()) == costs_of()
    changing = dataclasses.replace(costs_of(), speeds=(0.9, 1.1))
    assert PlanCosts.from_json(changing.to_json()) == changing


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
        ("executed_sizes", ()),
        ("speeds", (1.0, 0.0)),
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

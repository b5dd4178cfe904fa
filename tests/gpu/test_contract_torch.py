"""The engine contract on backend `torch` and a GPU, and whether graphs were captured."""

import pytest

from tests.contract.test_engine import *  # noqa: F403 - the contract suite, on the cases below
from tests.contract.test_engine import warmed_up_slot

torch_models = pytest.importorskip("tests.support.torch_models", reason="torch is not installed", exc_type=ImportError)


@pytest.fixture(params=[case.param for case in torch_models.torch_cases("cuda")])
def case(request):
    return request.param


def test_every_warmed_up_size_runs_as_a_graph_unless_it_is_switched_off(case, rig, engine, measured):
    slot = warmed_up_slot(rig, engine)
    for batch_size in range(1, engine.specs.max_batch_size + 1):
        engine.enqueue(0, batch_size, slot.compute)
    slot.compute.sync()
    measured(f"graph {engine.launches.graph}, plain {engine.launches.plain} {engine.capture_error}")
    wants_graphs = case.options.get("cuda_graphs") != "off"
    assert (engine.launches.graph > 0, engine.launches.plain > 0) == (wants_graphs, not wants_graphs)

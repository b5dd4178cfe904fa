"""The engine contract on backend `torch` and a GPU, and whether graphs were captured."""

import pytest

from forebay_server.engines.errors import ModelFileError
from tests.contract.test_engine import *  # noqa: F403 - the contract suite, on the cases below
from tests.contract.test_engine import warmed_up_slot
from tests.support.rig import BoundSlot

torch_models = pytest.importorskip("tests.support.torch_models", reason="torch is not installed", exc_type=ImportError)


@pytest.fixture(params=[case.param for case in torch_models.torch_cases("cuda")])
def case(request):
    return request.param


def test_every_warmed_up_size_runs_as_a_graph_unless_it_is_switched_off(case, rig, engine, measured):
    slot = warmed_up_slot(rig, engine)
    for batch_size in range(1, engine.specs.max_batch_size + 1):
        engine.enqueue(0, batch_size, slot.compute)
    slot.compute.sync()
    measured(f"graph {engine.launches.graph}, plain {engine.launches.plain}")
    wants_graphs = case.options.get("cuda_graphs") != "off"
    assert (engine.launches.graph > 0, engine.launches.plain > 0) == (wants_graphs, not wants_graphs)


def test_bfloat16_is_served_as_its_bits(rig, tmp_path):
    path = torch_models.write_doubled(tmp_path, torch_models.torch.bfloat16)
    engine = rig.open_engine("torch", path, max_batch_size=2)
    slot = BoundSlot(rig, engine, 0)
    engine.warm_up((1, 2), slot.compute)
    (doubled,) = slot.run([torch_models.bfloat16(1, -0.5, 3, 1e30).reshape(1, 4)])
    assert doubled.tolist() == torch_models.bfloat16(2, -1, 6, 2e30).reshape(1, 4).tolist()


class Forgetful(torch_models.torch.nn.Module):
    """Leaves half of its output unwritten."""

    def forward(self, x):
        made = torch_models.torch.empty_like(x)
        made[:, :2] = 1
        return x, made


@pytest.mark.parametrize("graphs", ["on", "off"])
def test_results_in_memory_that_the_model_never_wrote_are_refused(rig, tmp_path, graphs):
    path = torch_models.export(Forgetful(), (torch_models.torch.zeros(2, 4),), tmp_path / "model.pt2")
    engine = rig.open_engine("torch", path, options={"cuda_graphs": graphs}, max_batch_size=2)
    slot = BoundSlot(rig, engine, 0)
    with pytest.raises(ModelFileError, match=r"holds \d+ elements that the model makes and never writes"):
        engine.warm_up((1, 2), slot.compute)

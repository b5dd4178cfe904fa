"""The same weights on the GPU, on PyTorch's CPU and in ONNX Runtime give the same numbers."""

import itertools

import numpy as np
import pytest

from tests.gpu.workload import open_workload, pictures, torch_models
from tests.support import models
from tests.support.rig import BoundSlot

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


@pytest.mark.parametrize(("allow_tf32", "tolerance"), [("off", 2e-5), ("on", 5e-3)])
def test_a_conv_net_agrees_with_onnx_runtime(rig, tmp_path, measured, allow_tf32, tolerance):
    model = models.conv_net(size=64, channels=32)
    path = torch_models.export(
        torch_models.ConvNet(model), (torch_models.torch.zeros(2, 3, 64, 64),), tmp_path / "model.pt2"
    )
    engine = rig.open_engine("torch", path, options={"allow_tf32": allow_tf32}, max_batch_size=8)
    slot = BoundSlot(rig, engine, 0)
    engine.warm_up((1, 8), slot.compute)
    oracle = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    worst = 0.0
    for rows in (1, 3, 8):
        values = np.random.default_rng(rows).normal(size=(rows, 3, 64, 64)).astype(np.float32)
        expected = oracle.run(None, {"image": values})[0]
        worst = max(worst, float(np.abs(slot.run([values])[0] - expected).max() / np.abs(expected).max()))
    measured(f"max error / max value {worst:.1e}")
    assert worst < tolerance


def test_graphs_and_plain_enqueues_give_the_same_numbers(rig, tmp_path, measured):
    engine = open_workload(rig, tmp_path, options={"allow_tf32": "off"})
    plain = open_workload(rig, tmp_path, options={"allow_tf32": "off", "cuda_graphs": "off"})
    slots = []
    for one in (engine, plain):
        slots.append(BoundSlot(rig, one, 0))
        one.warm_up((1, 4, 8), slots[-1].compute)
    worst = 0.0
    for rows in (1, 4, 8):
        graph_result, plain_result = (slot.run([pictures(rows, seed=rows)])[0] for slot in slots)
        worst = max(worst, float(np.abs(graph_result - plain_result).max()))
    measured(f"graph {engine.launches.graph}, plain {plain.launches.plain}, max difference {worst:.1e}")
    assert engine.launches.graph == 3
    assert plain.launches.plain == 3
    assert worst < 1e-4


def test_a_slot_used_again_at_another_size_gives_fresh_outputs(rig, tmp_path):
    engine = open_workload(rig, tmp_path)
    slots = [BoundSlot(rig, engine, index) for index in range(3)]
    engine.warm_up((1, 2, 8), slots[0].compute)
    wanted = {rows: slots[0].run([pictures(rows, seed=rows)])[0] for rows in (1, 2, 8)}
    for rows in (8, 1, 2, 8, 2, 1):
        for slot in slots:
            np.testing.assert_array_equal(slot.run([pictures(rows, seed=rows)])[0], wanted[rows])


def test_the_outputs_of_a_slot_survive_graphs_of_other_slots(rig, tmp_path, measured):
    """Graphs of all slots share one memory pool: the scratch memory of one must not overlap another's outputs."""
    engine = open_workload(rig, tmp_path)
    slots = [BoundSlot(rig, engine, index) for index in range(3)]
    engine.warm_up((1, 2, 8), slots[0].compute)
    wanted = {rows: slots[0].run([pictures(rows, seed=rows)])[0] for rows in (1, 2, 8)}
    damaged, checked = [], 0
    for kept, rows in itertools.product(slots, wanted):
        for other, other_rows in itertools.product(slots, wanted):
            if other is kept:
                continue
            kept.begin([pictures(rows, seed=rows)])
            kept.compute.sync()
            other.begin([pictures(other_rows, seed=99)])
            other.compute.sync()
            checked += 1
            if not np.array_equal(kept.end(rows)[0], wanted[rows]):
                damaged.append(f"slot {kept.index} at {rows} rows by slot {other.index} at {other_rows}")
    measured(f"{len(damaged)} of {checked} pairs damaged {damaged[:3]}")
    assert damaged == []

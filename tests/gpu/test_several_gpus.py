"""One PyTorch model on every GPU of the machine: lanes of one queue. Needs two GPUs."""

import numpy as np
import pytest

served_torch = pytest.importorskip(
    "tests.support.served_torch", reason="what service needs is not installed", exc_type=ImportError
)


@pytest.fixture
def gpu_count(rig):
    if rig.device.kind_count < 2:
        pytest.skip("needs two GPUs, this machine has one")
    return rig.device.kind_count


@pytest.mark.parametrize("count", [1, 2])
def test_every_gpu_gives_right_answers(tmp_path, measured, gpu_count, count):
    """KIND_GPU without `gpus` is all of them."""
    root = served_torch.write_repository(tmp_path / "models", "KIND_GPU", count)
    batches, memory = {}, {}

    def look(version):
        for lane in version.lanes:
            launches = lane.engine.launches
            batches.setdefault(lane.device.name, []).append(launches.graph + launches.plain)
            memory[lane.device.name] = lane.device.allocated.device_bytes

    rows, completions = served_torch.serve(root, 2_000, look=look)
    for row, completion in zip(rows, completions, strict=True):
        assert completion.error is None
        np.testing.assert_array_equal(completion.outputs[0][0], row.astype(np.int32).T)
        assert completion.outputs[1].tolist() == [int(row.sum())]
    measured(f"batches by instance: {batches}")
    assert list(batches) == [f"cuda:{gpu}" for gpu in range(gpu_count)]
    assert all(len(on_gpu) == count and sum(on_gpu) > 0 for on_gpu in batches.values())
    assert all(nbytes > 0 for nbytes in memory.values())

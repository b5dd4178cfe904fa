"""A PyTorch model behind a whole model version on the GPU, as KIND_GPU in its configuration asks: two instances."""

import numpy as np
import pytest

from tests.support.dirt import PATTERNS, Dirt

served_torch = pytest.importorskip(
    "tests.support.served_torch", reason="what service needs is not installed", exc_type=ImportError
)


def test_every_request_gets_its_own_row(tmp_path, measured):
    root = served_torch.write_repository(tmp_path / "models", "KIND_GPU")
    rows, completions = served_torch.serve(root, 256)
    for row, completion in zip(rows, completions, strict=True):
        assert completion.error is None
        np.testing.assert_array_equal(completion.outputs[0][0], row.astype(np.int32).T)
        assert completion.outputs[1].tolist() == [int(row.sum())]
    sizes = sorted({completion.batch_size for completion in completions})
    h2d_us = np.median([completion.request.timeline.h2d_ns for completion in completions]) / 1000
    execute_us = np.median([completion.request.timeline.execute_ns for completion in completions]) / 1000
    measured(f"batch sizes {sizes}; h2d {h2d_us:.0f} us, execute {execute_us:.0f} us")
    assert execute_us > 0


@pytest.mark.parametrize("pattern", PATTERNS)
def test_nothing_that_lay_in_memory_is_in_an_answer(tmp_path, pattern):
    """Batches are padded to the sizes that have a graph; the padding rows are dirty."""
    root, dirt = served_torch.write_repository(tmp_path / "models", "KIND_GPU"), Dirt(pattern)
    rows, completions = served_torch.serve(root, 256, before_execution=dirt)
    assert dirt.executions > 0
    for row, completion in zip(rows, completions, strict=True):
        np.testing.assert_array_equal(completion.outputs[0][0], row.astype(np.int32).T)
        assert completion.outputs[1].tolist() == [int(row.sum())]

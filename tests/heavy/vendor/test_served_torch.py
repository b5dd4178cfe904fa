"""A PyTorch model behind a whole model version on the CPU."""

import pytest

pytest.importorskip("torch")
served_torch = pytest.importorskip("tests.support.served_torch", exc_type=ImportError)


def test_every_request_gets_its_own_row(tmp_path):
    rows, completions = served_torch.serve(served_torch.write_repository(tmp_path / "models", "KIND_CPU"), 64)
    for row, completion in zip(rows, completions, strict=True):
        assert completion.error is None
        assert completion.outputs[1].tolist() == [int(row.sum())]

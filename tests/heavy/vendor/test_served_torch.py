"""A PyTorch model behind a whole model version on the CPU."""

import pytest

pytest.importorskip("torch")
served_torch = pytest.importorskip("tests.support.served_torch", exc_type=ImportError)


@pytest.mark.parametrize("kind", ["KIND_CPU", "KIND_GPU"])
def test_every_request_gets_its_own_row(tmp_path, kind):
    """KIND_GPU with --cpu-fallback, on a machine without a GPU."""
    root = served_torch.write_repository(tmp_path / "models", kind)
    rows, completions = served_torch.serve(root, 64, cpu_fallback=kind == "KIND_GPU")
    for row, completion in zip(rows, completions, strict=True):
        assert completion.error is None
        assert completion.outputs[1].tolist() == [int(row.sum())]

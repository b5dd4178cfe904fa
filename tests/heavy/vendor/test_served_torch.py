"""A PyTorch model behind a whole model version on the CPU."""

import warnings

import numpy as np
import pytest

from tests.support.dirt import PATTERNS, Dirt

torch = pytest.importorskip("torch")
served_torch = pytest.importorskip("tests.support.served_torch", exc_type=ImportError)
from forebay_server.service.models.check import check_repositories  # noqa: E402 - after the skips


@pytest.mark.parametrize("kind", ["KIND_CPU", "KIND_GPU"])
def test_every_request_gets_its_own_row(tmp_path, kind):
    """KIND_GPU with --cpu-fallback, on a machine without a GPU."""
    root = served_torch.write_repository(tmp_path / "models", kind)
    rows, completions = served_torch.serve(root, 64, cpu_fallback=kind == "KIND_GPU")
    for row, completion in zip(rows, completions, strict=True):
        assert completion.error is None
        assert completion.outputs[1].tolist() == [int(row.sum())]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_nothing_that_lay_in_memory_is_in_an_answer(tmp_path, pattern):
    root, dirt = served_torch.write_repository(tmp_path / "models", "KIND_CPU"), Dirt(pattern)
    rows, completions = served_torch.serve(root, 64, before_execution=dirt)
    assert dirt.executions > 0
    for row, completion in zip(rows, completions, strict=True):
        np.testing.assert_array_equal(completion.outputs[0][0], row.astype(np.int32).T)
        assert completion.outputs[1].tolist() == [int(row.sum())]


CONFIG = """
backend: "pytorch" max_batch_size: 8
input { name: "INPUT__0" data_type: TYPE_FP32 dims: [ 3, 4 ] }
output { name: "OUTPUT__0" data_type: TYPE_FP32 dims: [ 3, 4 ] }
instance_group { kind: KIND_GPU }
"""


@pytest.mark.parametrize(
    ("text", "cpu_fallback", "words"),
    [
        (CONFIG, True, "INPUT__0 FP32 [3, 4] -> OUTPUT__0 FP32 [3, 4]; up to 8 rows"),
        (CONFIG, False, "or write KIND_CPU in instance_group, or start the server with --cpu-fallback"),
        ('backend: "pytorch"', True, "TorchScript declares no shapes: write input and output in config.pbtxt, or set"),
    ],
)
def test_a_triton_repository_with_torchscript_is_taken_or_told_every_fix(tmp_path, text, cpu_fallback, words):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    (tmp_path / "m" / "1").mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript is; Triton's repositories are full of it
        torch.jit.trace(torch.nn.ReLU(), torch.zeros(1, 3, 4)).save(str(tmp_path / "m" / "1" / "model.pt"))
    (tmp_path / "m" / "config.pbtxt").write_text(text)
    (finding,) = check_repositories([tmp_path], cpu_fallback=cpu_fallback)
    assert words in (finding.problem or finding.summary)
    assert [line for line in finding.warnings if "m: runs on the CPU: " in line] or not cpu_fallback or text != CONFIG


def test_an_exported_program_says_everything_itself(tmp_path):
    """No config.pbtxt: names, types, shapes and the batch come from model.pt2."""
    root = served_torch.write_repository(tmp_path / "models", "KIND_CPU")
    (root / "pixels" / "config.pbtxt").unlink()
    (finding,) = check_repositories([root])
    assert not finding.problem
    assert "UINT8 [5, 7] -> " in finding.summary
    assert "rows" in finding.summary

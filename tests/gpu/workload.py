"""A model heavy enough to see things beside, and the engine that runs it."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
torch_models = pytest.importorskip("tests.support.torch_models", exc_type=ImportError)

PICTURE = (416, 416, 3)
MAX_ROWS = 32


class Detectorish(torch.nn.Module):
    """uint8 pictures -> 85 KB of float32 a row, through 3x3 convolutions: the shape of work of a small detector."""

    def __init__(self, width: int = 64, depth: int = 6, seed: int = 3) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(seed)

        def weights(*shape):
            fan_in = shape[1] * 9
            return torch.nn.Parameter(torch.randn(*shape, generator=random) * (2 / fan_in) ** 0.5, requires_grad=False)

        self.first = weights(width, 3, 3, 3)
        self.layers = torch.nn.ParameterList([weights(width, width, 3, 3) for _ in range(depth)])
        self.last = weights(8, width, 3, 3)

    def forward(self, pictures):
        x = pictures.to(torch.float32).permute(0, 3, 1, 2) / 255 - 0.5
        x = torch.nn.functional.conv2d(x, self.first, stride=4, padding=1).relu()
        for layer in self.layers:
            x = torch.nn.functional.conv2d(x, layer, padding=1).relu()
        x = torch.nn.functional.conv2d(x, self.last, stride=2, padding=1)
        return x.flatten(1)


def write(folder: Path, **settings) -> Path:
    example = (torch.zeros(2, *PICTURE, dtype=torch.uint8),)
    return torch_models.export(Detectorish(**settings), example, folder / "model.pt2", max_rows=MAX_ROWS)


def open_workload(rig, folder, *, max_batch_size=8, options=None, **settings):
    return rig.open_engine("torch", write(folder, **settings), options=options, max_batch_size=max_batch_size)


def pictures(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, *PICTURE)).astype(np.uint8)

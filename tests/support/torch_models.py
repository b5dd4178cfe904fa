"""Small PyTorch models for engine tests, with the same weights as the ONNX models of tests/support/models."""

import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from forebay_server.engines.datatypes import BF16
from tests.contract.test_engine import EngineCase
from tests.support import models

MAX_ROWS = 16


class ConvNet(torch.nn.Module):
    """`models.conv_net` in torch, with its weights."""

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        for weight in model.graph.initializer:
            self.register_buffer(weight.name, torch.from_numpy(numpy_helper.to_array(weight).copy()))

    def forward(self, image):
        features = torch.nn.functional.conv2d(image, self.kernel, padding=1).relu()
        return features.mean((2, 3)) @ self.weight + self.bias


class AddSub(torch.nn.Module):
    """Triton's `simple`."""

    def forward(self, first, second):
        return first + second, first - second


class PixelSum(torch.nn.Module):
    """Bytes in, two types out, and an output that is not contiguous until it is made so."""

    def forward(self, pixels):
        wide = pixels.to(torch.int32)
        return wide.transpose(1, 2), wide.sum((1, 2)).to(torch.int64)


class Echo(torch.nn.Module):
    """Its input twice, another view of it, and a constant: outputs in memory of other tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.arange(4, dtype=torch.float32))

    def forward(self, x):
        return x, x.flip(1), x, self.weight.expand(x.shape[0], 4)


class Doubled(torch.nn.Module):
    """Exact in every floating type."""

    def forward(self, x):
        return x * 2


def export(
    module: torch.nn.Module, examples: tuple[torch.Tensor, ...], path: Path, *, max_rows: int = MAX_ROWS
) -> Path:
    """Save `module` as a torch.export program whose first dimensions vary together."""
    rows = torch.export.Dim("rows", min=1, max=max_rows)
    program = torch.export.export(module.eval(), examples, dynamic_shapes=tuple({0: rows} for _ in examples))
    torch.export.save(program, path)
    return path


def script(module: torch.nn.Module, path: Path) -> Path:
    """Save `module` as TorchScript."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and still served
        torch.jit.save(torch.jit.script(module.eval()), str(path))
    return path


def write_conv(folder: Path) -> Path:
    return export(ConvNet(models.conv_net()), (torch.zeros(2, 3, 16, 16),), folder / "model.pt2")


def write_add_sub(folder: Path) -> Path:
    return export(
        AddSub(), (torch.zeros(2, 16, dtype=torch.int32), torch.ones(2, 16, dtype=torch.int32)), folder / "model.pt2"
    )


def write_pixels(folder: Path) -> Path:
    return export(PixelSum(), (torch.zeros(2, 5, 7, dtype=torch.uint8),), folder / "model.pt2")


def write_echo(folder: Path) -> Path:
    return export(Echo(), (torch.zeros(2, 4),), folder / "model.pt2")


def write_echo_script(folder: Path) -> Path:
    return script(Echo(), folder / "model.pt")


def write_script(folder: Path) -> Path:
    return script(AddSub(), folder / "model.pt")


def write_doubled(folder: Path, dtype: torch.dtype) -> Path:
    return export(Doubled(), (torch.zeros(2, 4, dtype=dtype),), folder / "model.pt2")


def bfloat16(*values: float) -> np.ndarray:
    """Values that bfloat16 can hold, as its bits: the upper halves of floats."""
    return (np.array(values, np.float32).view(np.uint32) >> 16).astype(np.uint16).view(BF16)


def torch_cases(device: str) -> list[EngineCase]:
    """Engine contract cases of backend `torch` on a device."""
    conv, add_sub = models.conv_net(), models.add_sub()

    def case(name, oracle, write_model, **settings):
        options = {"allow_tf32": "off", **settings.pop("options", {})}
        return EngineCase(
            f"torch-{device}-{name}", "torch", device, oracle, write_model, options, is_gpu=device == "cuda", **settings
        )

    def pixel_sum(inputs):
        wide = inputs[0].astype("int32")
        return [wide.transpose(0, 2, 1), wide.sum((1, 2)).astype("int64")]

    def echoed(inputs):
        (x,) = inputs
        return [x, x[:, ::-1], x, np.tile(np.arange(4, dtype=np.float32), (len(x), 1))]

    inputs = {"inputs": "first:INT32:16;second:INT32:16"}
    cases = [
        case("conv", lambda values: models.reference(conv, values), write_conv, max_batch_size=8, tolerance=1e-4),
        case("add-sub", lambda values: models.reference(add_sub, values), write_add_sub),
        case("pixels", pixel_sum, write_pixels, max_batch_size=None),
        case("torchscript", lambda values: models.reference(add_sub, values), write_script, options=inputs),
        case("echo", echoed, write_echo),
        case("echo-torchscript", echoed, write_echo_script, options={"inputs": "x:FP32:4"}),
    ]
    if device == "cuda":
        plain = {"cuda_graphs": "off"}
        cases.append(case("plain", lambda v: models.reference(conv, v), write_conv, options=plain, tolerance=1e-4))
    return cases

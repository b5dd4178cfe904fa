"""The networks that the GPU benchmarks run: the bundled detector, taken over from ONNX, and a ResNet-50 in FP16.

The detector keeps its weights: `OnnxNetwork` interprets the few operators of that one graph, as torch.export traces
them. ResNet-50 is the standard bottleneck network (He et al. 2015, stride in the 3x3 convolution) with random weights
from a seed and its batch norms folded away, as a deployed network has them. Both take uint8 NHWC, as the service does.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor
from torch.nn import functional as nn

OUTPUTS = {
    "detector": ("boxes", "scores", "class_ids"),
    "detector_fp16": ("boxes", "scores", "class_ids"),
    "resnet50": ("logits",),
}
_CASTS = {1: torch.float32, 6: torch.int32}


class OnnxNetwork(torch.nn.Module):  # type: ignore[misc]  # torch is not there where types are checked
    """The graph of the bundled detector in torch: its own weights, in FP32 or FP16 convolutions."""

    def __init__(self, path: Path, *, is_half: bool = False) -> None:
        super().__init__()
        self._graph = onnx.load(path).graph
        self._dtype = torch.float16 if is_half else torch.float32
        self._places: dict[str, str] = {}
        self._lists: dict[str, list[float]] = {}
        for tensor in self._graph.initializer:
            self._keep(tensor.name, numpy_helper.to_array(tensor))
        self._nodes = [node for node in self._graph.node if not self._is_folded(node)]

    def _keep(self, name: str, array: Any) -> None:  # noqa: ANN401 - numpy of any type
        if array.dtype.kind == "i" or array.size == 0:
            self._lists[name] = array.reshape(-1).tolist()
        elif name.startswith("scales"):
            self._lists[name] = array.tolist()
        else:
            is_weight = array.ndim == 4 or (array.ndim == 1 and name.startswith("unknown"))
            dtype = self._dtype if is_weight and not name.startswith("pixel") else torch.float32
            self._places[name] = f"w{len(self._places)}"
            self.register_buffer(self._places[name], torch.from_numpy(array.copy()).to(dtype))

    def _is_folded(self, node: Any) -> bool:  # noqa: ANN401 - NodeProto
        """Weights are stored as FP16 and cast when the model starts: do that now."""
        if node.op_type != "Cast" or node.input[0] not in self._places:
            return False
        self._places[node.output[0]] = self._places[node.input[0]]
        value = getattr(self, self._places[node.input[0]])
        setattr(self, self._places[node.input[0]], value.to(self._dtype))
        return True

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return boxes, scores and class ids."""
        values: dict[str, Any] = {"image": image}
        values |= {name: getattr(self, place) for name, place in self._places.items()}
        values |= self._lists
        for node in self._nodes:
            arguments = [values.get(name) for name in node.input]
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            results = _OPERATORS[node.op_type](attributes, *arguments)
            for name, result in zip(node.output, results if isinstance(results, tuple) else (results,), strict=True):
                if name == "pixels_normalised":  # NHWC stays as it lies in memory: channels last
                    result = result.to(self._dtype).contiguous(memory_format=torch.channels_last)  # noqa: PLW2901
                values[name] = result.float() if name == "heads" else result
        return tuple(values[output.name] for output in self._graph.output)


def _conv(attributes: dict[str, Any], x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    padding = tuple(attributes.get("pads", (0, 0))[:2])
    bias = None if bias is None else bias.to(weight.dtype)
    return nn.conv2d(x, weight, bias, tuple(attributes["strides"]), padding, 1, attributes["group"])


def _pool(attributes: dict[str, Any], x: Tensor) -> Tensor:
    return nn.max_pool2d(x, attributes["kernel_shape"], attributes["strides"], attributes["pads"][:2])


def _resize(_: dict[str, Any], x: Tensor, _roi: Any, scales: list[float]) -> Tensor:  # noqa: ANN401
    return nn.interpolate(x, scale_factor=list(scales[2:]), mode="bilinear", align_corners=False)


def _reshape(_: dict[str, Any], x: Tensor, shape: list[int]) -> Tensor:
    return x.contiguous().reshape([x.shape[i] if dim == 0 else dim for i, dim in enumerate(shape)])


_OPERATORS: dict[str, Callable[..., Any]] = {
    "Add": lambda _, a, b: a + b,
    "ArgMax": lambda a, x: x.argmax(a["axis"], keepdim=bool(a["keepdims"])),
    "Cast": lambda a, x: x.to(_CASTS[a["to"]]),
    "Concat": lambda a, *parts: torch.cat(parts, a["axis"]),
    "Conv": _conv,
    "LeakyRelu": lambda a, x: nn.leaky_relu(x, a["alpha"]),
    "MatMul": lambda _, a, b: a @ b,
    "MaxPool": _pool,
    "Mul": lambda _, a, b: a * b,
    "ReduceMax": lambda a, x: x.amax(a["axes"], keepdim=bool(a["keepdims"])),
    "Reshape": _reshape,
    "Resize": _resize,
    "Sigmoid": lambda _, x: x.sigmoid(),
    "Softmax": lambda a, x: x.softmax(a["axis"]),
    "Split": lambda a, x, sizes: x.split(sizes, a["axis"]),
    "Squeeze": lambda _, x, axes: x.squeeze(int(axes[0])),
    "Sub": lambda _, a, b: a - b,
    "Transpose": lambda a, x: x.permute(a["perm"]),
}


class _Convolution(torch.nn.Module):  # type: ignore[misc]  # torch is not there where types are checked
    def __init__(self, random: torch.Generator, inputs: int, outputs: int, size: int, stride: int = 1) -> None:
        super().__init__()
        scale = (2.0 / (inputs * size * size)) ** 0.5
        weight = torch.randn(outputs, inputs, size, size, generator=random) * scale
        self.weight = torch.nn.Parameter(weight, requires_grad=False)
        self.bias = torch.nn.Parameter(torch.zeros(outputs), requires_grad=False)
        self.stride, self.padding = stride, size // 2

    def forward(self, x: Tensor) -> Tensor:
        return nn.conv2d(x, self.weight, self.bias, self.stride, self.padding)


class _Bottleneck(torch.nn.Module):  # type: ignore[misc]  # torch is not there where types are checked
    def __init__(self, random: torch.Generator, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.reduce = _Convolution(random, inputs, width, 1)
        self.middle = _Convolution(random, width, width, 3, stride)
        self.expand = _Convolution(random, width, 4 * width, 1)
        self.expand.weight.mul_(0.2)  # batch norm would keep the sum of sixteen blocks from growing
        is_same = stride == 1 and inputs == 4 * width
        self.shortcut = torch.nn.Identity() if is_same else _Convolution(random, inputs, 4 * width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.middle(self.reduce(x).relu()).relu()
        y = self.expand(y) + self.shortcut(x)
        return y.relu()


class ResNet50(torch.nn.Module):  # type: ignore[misc]  # torch is not there where types are checked
    """25.6 million weights, 4.1 GFLOP a picture of 224 x 224."""

    def __init__(self, seed: int = 50) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        self.first = _Convolution(random, 3, 64, 7, 2)
        blocks: list[torch.nn.Module] = []
        inputs = 64
        for width, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
            for index in range(count):
                blocks.append(_Bottleneck(random, inputs, width, stride if index == 0 else 1))
                inputs = 4 * width
        self.blocks = torch.nn.Sequential(*blocks)
        self.head = torch.nn.Parameter(torch.randn(2048, 1000, generator=random) / 2048**0.5, requires_grad=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return 1000 logits a row, in FP32."""
        dtype = self.head.dtype
        x = image.permute(0, 3, 1, 2).to(dtype) / 127.5 - 1.0
        x = self.first(x.contiguous(memory_format=torch.channels_last)).relu()
        x = self.blocks(nn.max_pool2d(x, 3, 2, 1))
        return (x.mean((2, 3)) @ self.head).float()


def build(name: str, root: Path) -> tuple[torch.nn.Module, tuple[int, ...]]:
    """Return a network by name and its input shape without rows; `root` holds the bundled models."""
    if name == "resnet50":
        return _to_channels_last(ResNet50().half()), (224, 224, 3)
    detector = root / "detector" / "1" / "model.onnx"
    network = OnnxNetwork(detector, is_half=name == "detector_fp16")
    return _to_channels_last(network), (416, 416, 3)


def _to_channels_last(network: torch.nn.Module) -> torch.nn.Module:
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return network.eval()


def _name_outputs(program: Any, names: tuple[str, ...]) -> None:  # noqa: ANN401 - ExportedProgram
    """Call outputs what the configuration calls them; torch.export names them after the operator that made them."""
    results = program.graph.output_node().args[0]
    for node, spec, name in zip(results, program.graph_signature.output_specs, names, strict=True):
        node._rename(name)  # noqa: SLF001 - there is no public way
        spec.arg.name = name


def export(name: str, root: Path, path: Path, max_rows: int) -> Path:
    """Write a network as a torch.export program whose rows vary."""
    network, shape = build(name, root)
    rows = torch.export.Dim("rows", min=1, max=max_rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example = (torch.zeros(2, *shape, dtype=torch.uint8),)
        program = torch.export.export(network, example, dynamic_shapes=({0: rows},))
        _name_outputs(program, OUTPUTS[name])
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.export.save(program, path)
    return path

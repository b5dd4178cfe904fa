"""The normalisation (x - mean) * scale of a model's picture as a part of convolutions, for graphs that become INT8.

In an INT8 graph the subtraction would run on channels-last data with the three channels as the innermost loop, slowly
(a fifth of the bundled detector's INT8 time): docs/adr/0031.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from forebay_server.engines.build.onnx_file import import_onnx

MOST_OFF = 0.3
"""After the normalisation: the most by which a channel's mean may differ from the one number in its place. ImageNet's,
of pixels from 0 to 255, differ by 0.18."""


class _Normalisation(NamedTuple):
    """Two nodes, and their constants [channels, 1, 1] of doubles."""

    subtract: Any
    multiply: Any
    mean: NDArray[np.float64]
    factor: NDArray[np.float64]


def absorb_normalisation(model: Any) -> bool:  # noqa: ANN401
    """Turn (x - mean) * scale in front of a convolution into x - number, and the rest into its weights and bias.

    Return whether there was one.

    Bytes less one number are INT8 with a zero point: a part of the convolution, so that the normalisation costs
    nothing. The number is the mean of the means. Pixels that the convolution pads with count as that number instead
    of their channel's mean, so it must be close to all of them.
    """
    graph = model.graph
    found = _find(graph)
    consumers = [] if found is None else [node for node in graph.node if found.multiply.output[0] in node.input]
    if found is None or len(consumers) != 1 or consumers[0].op_type != "Conv":
        return False
    conv, constants = consumers[0], _constants(graph)
    weights = constants.get(conv.input[1])
    bias = constants.get(conv.input[2]) if len(conv.input) == 3 else np.zeros(0 if weights is None else len(weights))
    number = float(np.rint(found.mean.mean()))
    if (
        weights is None
        or bias is None
        or weights.shape[1] != found.mean.size  # a convolution of each channel by itself
        or np.abs((found.mean - number) * found.factor).max() > MOST_OFF
    ):
        return False
    scaled = weights.astype(np.float64) * found.factor
    offset = (scaled * (number - found.mean)).sum(axis=tuple(range(1, scaled.ndim)))
    name = found.multiply.name or found.multiply.output[0]
    parts = (np.array(number), scaled, bias + offset)
    names = [f"{name}_{part}" for part in ("number", "weight", "bias")]
    for each, values in zip(names, parts, strict=True):
        graph.initializer.append(import_onnx().numpy_helper.from_array(values.astype(np.float32), each))
    found.subtract.input[1] = names[0]
    conv.ClearField("input")
    conv.input.extend([found.subtract.output[0], *names[1:]])
    graph.node.remove(found.multiply)
    _drop_unused(graph)
    return True


def join_normalisation(model: Any) -> bool:  # noqa: ANN401
    """Turn (x - mean) * scale with constants per channel into one depthwise 1x1 convolution.

    Return whether there was one. Exact up to rounding, and quantized with the rest.
    """
    onnx = import_onnx()
    graph = model.graph
    found = _find(graph)
    if found is None:
        return False
    channels = found.factor.size
    prefix = f"{found.multiply.name or found.multiply.output[0]}_joined"
    weight = found.factor.reshape(channels, 1, 1, 1).astype(np.float32)
    bias = (-found.mean * found.factor).reshape(channels).astype(np.float32)
    graph.initializer.append(onnx.numpy_helper.from_array(weight, f"{prefix}_weight"))
    graph.initializer.append(onnx.numpy_helper.from_array(bias, f"{prefix}_bias"))
    joined = onnx.helper.make_node(
        "Conv",
        [found.subtract.input[0], f"{prefix}_weight", f"{prefix}_bias"],
        [found.multiply.output[0]],
        name=prefix,
        group=channels,
        kernel_shape=[1, 1],
    )
    position = list(graph.node).index(found.subtract)
    graph.node.remove(found.multiply)
    graph.node.remove(found.subtract)
    graph.node.insert(position, joined)
    _drop_unused(graph)
    return True


def _find(graph: Any) -> _Normalisation | None:  # noqa: ANN401
    constants = _constants(graph)
    producers = {output: node for node in graph.node for output in node.output}
    for multiply in graph.node:
        subtract = producers.get(multiply.input[0]) if multiply.op_type == "Mul" else None
        if subtract is None or subtract.op_type != "Sub":
            continue
        factor, mean = constants.get(multiply.input[1]), constants.get(subtract.input[1])
        if factor is None or mean is None or factor.shape != mean.shape or not _is_per_channel(factor.shape):
            continue
        if sum(subtract.output[0] in node.input for node in graph.node) == 1:
            return _Normalisation(subtract, multiply, *(each[0].astype(np.float64) for each in (mean, factor)))
    return None


def _constants(graph: Any) -> dict[str, NDArray[Any]]:  # noqa: ANN401
    return {each.name: import_onnx().numpy_helper.to_array(each) for each in graph.initializer}


def _drop_unused(graph: Any) -> None:  # noqa: ANN401
    used = {name for node in graph.node for name in node.input}
    for each in [each for each in graph.initializer if each.name not in used]:
        graph.initializer.remove(each)


def _is_per_channel(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[1] > 1 and shape[0] == shape[2] == shape[3] == 1

"""Small edits of an ONNX graph, for the scripts that fold pre- and post-processing into a model.

Opset 17, plain operators only (no TopK, no loops, no data-dependent shapes), so that ONNX Runtime, TensorRT and
others take the result. Constants added here are float32 or int64; stored weights are left as they are.
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

BATCH = "N"


def run(fold: Callable[[Path, Path], None], description: str) -> None:
    """Read the command line of a script that folds, and fold: from a source file to a target file."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    fold(arguments.source, arguments.target)


class GraphEditor:
    """Appends nodes to a copy of a graph and writes it with new inputs and outputs."""

    def __init__(self, source: Path) -> None:
        self.model = onnx.load(source)
        self.nodes: list[onnx.NodeProto] = list(self.model.graph.node)
        self.initializers: list[onnx.TensorProto] = list(self.model.graph.initializer)

    def constant(self, name: str, values: NDArray[Any]) -> str:
        """Add an initializer and return its name."""
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def add(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:  # noqa: ANN401
        """Add a node with one output and return the output's name."""
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=output, **attributes))
        return output

    def producer(self, tensor: str) -> onnx.NodeProto:
        """Return the node that makes `tensor`."""
        return next(node for node in self.nodes if tensor in node.output)

    def rename_input(self, old: str, new: str) -> None:
        """Let every reader of `old` read `new`."""
        for node in self.nodes:
            for i, name in enumerate(node.input):
                if name == old:
                    node.input[i] = new

    def normalise_image(self, pixels: str, mean: Sequence[float], scale: Sequence[float]) -> str:
        """Turn uint8 [N, H, W, 3] into float32 [N, 3, H, W], (x - mean) * scale for each channel."""
        channels = (1, 3, 1, 1)
        cast = self.add("Cast", [pixels], "pixels_float", to=TensorProto.FLOAT)
        planes = self.add("Transpose", [cast], "pixels_planes", perm=[0, 3, 1, 2])
        mean_name = self.constant("pixel_mean", np.array(mean, np.float32).reshape(channels))
        scale_name = self.constant("pixel_scale", np.array(scale, np.float32).reshape(channels))
        centred = self.add("Sub", [planes, mean_name], "pixels_centred")
        return self.add("Mul", [centred, scale_name], "pixels_normalised")

    def save(
        self,
        target: Path,
        inputs: Iterable[tuple[str, int, tuple[int, ...]]],
        outputs: Iterable[tuple[str, int, tuple[int, ...]]],
        doc: str,
    ) -> None:
        """Keep what the outputs need, in topological order, check the result and write it.

        Args:
            target: file to write.
            inputs: name, ONNX element type and shape without the batch dimension.
            outputs: names and shapes of the outputs.
            doc: one line for readers of the file.
        """
        output_list = list(outputs)
        graph = helper.make_graph(
            self._sorted_nodes([name for name, _, _ in output_list]),
            target.parent.parent.name or "model",
            [helper.make_tensor_value_info(name, kind, (BATCH, *shape)) for name, kind, shape in inputs],
            [helper.make_tensor_value_info(name, kind, (BATCH, *shape)) for name, kind, shape in output_list],
        )
        used = {name for node in graph.node for name in node.input}
        graph.initializer.extend(tensor for tensor in self.initializers if tensor.name in used)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], doc_string=doc)
        model.ir_version = 8
        model.producer_name = "forebay"
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, target)

    def _sorted_nodes(self, wanted: Sequence[str]) -> list[onnx.NodeProto]:
        producer = {name: node for node in self.nodes for name in node.output}
        done: set[str] = set()
        order: list[onnx.NodeProto] = []
        stack = [(name, False) for name in reversed(wanted)]
        while stack:
            name, is_expanded = stack.pop()
            node = producer.get(name)
            if node is None or name in done:
                continue
            if is_expanded:
                order.append(node)
                done.update(node.output)
            else:
                stack.append((name, True))
                stack.extend((needed, False) for needed in reversed(node.input) if needed not in done)
        return order

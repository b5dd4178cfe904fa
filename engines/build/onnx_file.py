"""Reads ONNX files, with remedies in the errors, and analyses their graphs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forebay_server.engines.errors import BackendUnavailableError, ModelFileError
from forebay_server.engines.extras import install_hint
from forebay_server.engines.model_file import require_model_file

HEAVY_OPS = frozenset({"Conv", "ConvTranspose", "Gemm"})
"""Operators with the weights of a network, which mark where its trunk begins and ends."""


def import_onnx() -> Any:  # noqa: ANN401
    """Return the package. Raises BackendUnavailableError, with what to install."""
    try:
        import onnx
    except ImportError as error:
        raise BackendUnavailableError(f"{error}: {install_hint('build')}") from error
    return onnx


def load_model(path: Path) -> Any:  # noqa: ANN401
    """Load and check a model with its external data.

    Raises:
        ModelFileError: missing, truncated, no ONNX, or with external data outside its folder.
    """
    onnx = import_onnx()
    require_model_file(path)
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:
        raise ModelFileError(f"{path}: not an ONNX file: {_first_line(error)}") from error
    if not model.graph.node:
        raise ModelFileError(f"{path}: not an ONNX file, or one without operators")
    _check_external_data(onnx, path, model)
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
        onnx.checker.check_model(model)
    except Exception as error:
        raise ModelFileError(f"{path}: not a valid ONNX model: {_first_line(error)}") from error
    return model


def _check_external_data(onnx: Any, path: Path, model: Any) -> None:  # noqa: ANN401
    folder = path.parent.resolve()
    for tensor in onnx.external_data_helper._get_all_tensors(model):  # noqa: SLF001 - the only way to list them
        for entry in tensor.external_data:
            if entry.key != "location":
                continue
            target = (folder / entry.value).resolve()
            if not target.is_relative_to(folder):
                raise ModelFileError(
                    f"{path}: tensor {tensor.name!r} keeps its data in {entry.value!r}, outside the model's folder, "
                    "which is not read: save the model with its data beside it"
                )
            if not target.is_file():
                raise ModelFileError(f"{path}: external data {entry.value!r} is missing: copy it beside the model")


@dataclass(frozen=True, slots=True)
class Trunk:
    """The part of a graph from its first to its last operator with weights, by node name, and the nodes around it."""

    inside: frozenset[str]
    outside: frozenset[str]


def name_nodes(model: Any) -> None:  # noqa: ANN401
    """Give every node a unique name, to refer to it."""
    seen: set[str] = set()
    for index, node in enumerate(model.graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{index}"
        seen.add(node.name)


def find_trunk(model: Any) -> Trunk:  # noqa: ANN401
    """Return the nodes between operators with weights: these may lose precision.

    The nodes before (pixels to numbers) and after (boxes, scores, arg max) are cheap and need every bit.
    """
    nodes = list(model.graph.node)
    producers = {output: node for node in nodes for output in node.output}
    consumers: dict[str, list[Any]] = {}
    for node in nodes:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    heavy = [node for node in nodes if node.op_type in HEAVY_OPS]
    above = _reach(heavy, lambda node: [producers[name] for name in node.input if name in producers])
    below = _reach(heavy, lambda node: [each for name in node.output for each in consumers.get(name, [])])
    inside = above & below
    return Trunk(frozenset(inside), frozenset(node.name for node in nodes if node.name not in inside))


def _reach(start: list[Any], step: Any) -> set[str]:  # noqa: ANN401
    reached: set[str] = set()
    todo = list(start)
    while todo:
        node = todo.pop()
        if node.name not in reached:
            reached.add(node.name)
            todo.extend(step(node))
    return reached


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)

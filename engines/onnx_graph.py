"""Names and branches of an ONNX graph that is changed in memory. Pure."""

from collections.abc import Iterator

from forebay_server.engines.errors import ModelFileError
from forebay_server.engines.onnx_wire import onnx_model_pb2 as wire

MOST_DEPTH = 32  # of branches within branches


class GraphError(ModelFileError):
    """A change does not fit the graph of this model."""


def graphs(graph: wire.GraphProto, depth: int = 0) -> Iterator[wire.GraphProto]:
    """Yield the graph and those within it. Raises GraphError if they are nested too deeply."""
    if depth > MOST_DEPTH:
        raise GraphError(f"the model has branches within branches, more than {MOST_DEPTH} deep")
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from graphs(inner, depth + 1)


def rename(graph: wire.GraphProto, name: str, new_name: str) -> None:
    """Let the nodes of one graph, without those within it, read another tensor."""
    for node in graph.node:
        for at, used in enumerate(node.input):
            if used == name:
                node.input[at] = new_name
    for value in graph.output:
        if value.name == name:  # of a branch that gives the tensor around it
            value.name = new_name


def free_name(graph: wire.GraphProto, stem: str) -> str:
    """Return a name that no tensor of the model has: `stem`, and more if that is taken."""
    taken = {str(used) for part in graphs(graph) for node in part.node for used in (*node.input, *node.output)}
    longest = max((len(used) - len(stem) for used in taken if used.startswith(stem)), default=-1)
    return stem + "_" * (longest + 1)

"""Whether the sizes of a model's outputs follow from those of its inputs, or depend on the numbers in them. Pure.

Theory of operation
    Nodes come in an order in which every tensor is made before it is used. Each tensor gets two marks: its numbers
    depend on the inputs' numbers (*data*), or its size does (*sized*). Inputs have the first mark, weights none. A node
    passes both on, except that the size of a tensor is a number that no input's numbers decide (`Shape`).

    A tensor is sized if a node makes it that counts (`NonZero`), or one that takes a size as numbers (`Reshape`) and
    takes these from data. Unknown nodes count as sized: those of other domains, branches and loops, and operators of
    sets that came later than this list.
"""

from collections.abc import Mapping

from forebay_server.engines.onnx_wire import onnx_model_pb2 as wire

NEWEST_OPSET = 23  # of the lists below
ONNX_DOMAINS = frozenset({"", "ai.onnx"})
COUNTING = frozenset(
    {
        "ConcatFromSequence",
        "ImageDecoder",
        "NonMaxSuppression",
        "NonZero",
        "Optional",
        "OptionalGetElement",
        "SequenceAt",
        "SequenceConstruct",
        "SequenceErase",
        "SequenceInsert",
        "SplitToSequence",
        "StringSplit",
        "Unique",
    }
)
"""Nodes whose outputs have as many elements as they find, and those of sequences, whose elements are not followed."""
REDUCED = frozenset({1})
SIZES: Mapping[str, frozenset[int]] = {
    "AffineGrid": frozenset({1}),
    "BlackmanWindow": frozenset({0}),
    "CenterCropPad": frozenset({1}),
    "Col2Im": frozenset({1, 2}),
    "Compress": frozenset({1}),
    "ConstantOfShape": frozenset({0}),
    "DFT": frozenset({1, 2}),
    "Expand": frozenset({1}),
    "HammingWindow": frozenset({0}),
    "HannWindow": frozenset({0}),
    "MaxUnpool": frozenset({2}),
    "MelWeightMatrix": frozenset({0, 1}),
    "OneHot": frozenset({1}),
    "Pad": frozenset({1, 3}),
    "Range": frozenset({0, 1, 2}),
    "Reshape": frozenset({1}),
    "Resize": frozenset({1, 2, 3}),
    "STFT": frozenset({1, 3}),
    "Slice": frozenset({1, 2, 3, 4}),
    "Split": frozenset({1}),
    "Squeeze": frozenset({1}),
    "Tile": frozenset({1, 2}),
    "TopK": frozenset({1}),
    "Unsqueeze": frozenset({1}),
    "Upsample": frozenset({1}),
}
"""Which inputs of a node are numbers that decide the size of its outputs."""


def sizes_follow_inputs(model: wire.ModelProto) -> bool:
    """Return whether inputs of one size always give outputs of one size; False where that is not known."""
    if any(each.version > NEWEST_OPSET for each in model.opset_import if each.domain in ONNX_DOMAINS):
        return False
    graph = model.graph
    data = {str(value.name) for value in graph.input} - {str(weight.name) for weight in graph.initializer}
    sized: set[str] = set()
    for node in graph.node:
        is_data, is_sized = _marks(node, data, sized)
        data.update(node.output if is_data else ())
        sized.update(node.output if is_sized else ())
    return not any(value.name in sized for value in graph.output)


def _marks(node: wire.NodeProto, data: set[str], sized: set[str]) -> tuple[bool, bool]:
    """Return whether the numbers and the size of a node's outputs depend on the numbers of the model's inputs."""
    names, kind = node.input, node.op_type
    takes_sized = any(name in sized for name in names)
    if kind in {"Shape", "Size"}:
        return takes_sized, False
    if node.domain not in ONNX_DOMAINS or any(each.HasField("g") or each.graphs for each in node.attribute):
        return True, True
    takes_data = any(name in data for name in names)
    at = SIZES.get(kind, REDUCED if kind.startswith("Reduce") else ())
    counts = (kind in COUNTING and takes_data) or any(names[each] in data for each in at if each < len(names))
    return takes_data or takes_sized, counts or takes_sized

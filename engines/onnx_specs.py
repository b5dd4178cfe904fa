"""From the inputs and outputs that an ONNX model declares to `EngineSpecs`: where is the batch dimension?

Pure: knows shapes and type names, not ONNX Runtime. The rules, in order:

- `max_batch_size` 0: there is no batch dimension; shapes are taken as they are.
- every first dimension is symbolic: it is the batch; its limit is `max_batch_size`, or DEFAULT_MAX_BATCH_SIZE.
- every first dimension is the same number N: for N above 1 a batch only if `max_batch_size` says N, since a first
  dimension of 10 may as well count something else. For N = 1 a batch of one row, unless an input has no other dimension
  and `max_batch_size` says nothing: a vector of one element is no row.
- otherwise there is no batch dimension, and a `max_batch_size` above 1 is an error.

`copied_outputs` finds the outputs that ONNX Runtime does not write to their bound address.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from forebay_server.engines.datatypes import BF16
from forebay_server.engines.engine import EngineSpecs, SlotBuffers, TensorSpec
from forebay_server.engines.errors import MisuseError, ModelFileError

DEFAULT_MAX_BATCH_SIZE = 8
"""For a model that takes any batch size and gives no limit. Small CNNs on a CPU are fastest per row at 2 to 4."""

_DTYPE_BY_ONNX_TYPE: dict[str, np.dtype[np.generic]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(bfloat16)": BF16,
    "tensor(double)": np.dtype(np.float64),
    "tensor(bool)": np.dtype(np.bool_),
    "tensor(uint8)": np.dtype(np.uint8),
    "tensor(uint16)": np.dtype(np.uint16),
    "tensor(uint32)": np.dtype(np.uint32),
    "tensor(uint64)": np.dtype(np.uint64),
    "tensor(int8)": np.dtype(np.int8),
    "tensor(int16)": np.dtype(np.int16),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(string)": np.dtype(object),
}


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """One declared input or output: a dimension is a number, or a name or None where it varies.

    `is_optional` is for an input that has an initializer, whose value is used where no other is fed.
    """

    name: str
    type: str
    shape: tuple[int | str | None, ...]
    is_optional: bool = False


@dataclass(frozen=True, slots=True)
class BatchedSpecs:
    """The specs, and the number of rows that every run has if the model fixes it (else None)."""

    specs: EngineSpecs
    fixed_rows: int | None

    def run_shape(self, spec: TensorSpec, batch_size: int) -> list[int]:
        """Return the whole shape of a tensor of one execution."""
        if not self.specs.has_batch_dimension:
            return list(spec.shape)
        return [self.fixed_rows or batch_size, *spec.shape]

    def unbound(self, model: str) -> "BatchedSpecs":
        """Return the layout of the same model run unbound. Raises ModelFileError if the model fixes several rows."""
        if (self.fixed_rows or 1) > 1:
            raise ModelFileError(
                f"{model}: a batch is always {self.fixed_rows} rows, which needs outputs of the shapes that the model "
                "declares, and its trial run had none of these: write max_batch_size: 0 and whole shapes in dims, or a "
                "model_warmup that it takes"
            )
        return replace(self, specs=replace(self.specs, is_bound=False))

    def with_output_shapes(self, shapes: Sequence[tuple[int, ...]]) -> "BatchedSpecs":
        """Return the layout of the same model with these shapes of one row of every output."""
        pairs = zip(self.specs.outputs, shapes, strict=True)
        outputs = tuple(replace(spec, shape=shape) for spec, shape in pairs)
        return replace(self, specs=replace(self.specs, outputs=outputs))

    def check_buffers(self, model: str, slot: SlotBuffers) -> None:
        """Raise unless every tensor has a fixed row size and the slot holds max_batch_size rows of each."""
        pairs = (*zip(self.specs.inputs, slot.inputs, strict=True), *zip(self.specs.outputs, slot.outputs, strict=True))
        for spec, buffer in pairs:
            if not spec.is_fixed:
                raise ModelFileError(
                    f"{model}: tensor {spec.name!r} has no fixed size (shape {spec.shape}, {spec.dtype}): "
                    "export the model with fixed inner dimensions"
                )
            needed_bytes = spec.row_bytes * self.specs.max_batch_size
            if buffer.nbytes < needed_bytes:
                raise MisuseError(f"slot {slot.index}: {spec.name!r} needs {needed_bytes} bytes, not {buffer.nbytes}")


@dataclass(frozen=True, slots=True)
class CopiedOutput:
    """An output that is another tensor of the graph, by its index in `EngineSpecs`.

    Attributes:
        index: of the output.
        source_index: of the input that it equals, or of the earlier output.
        is_input: whether the source is an input.
    """

    index: int
    source_index: int
    is_input: bool


def copied_outputs(specs: EngineSpecs) -> tuple[CopiedOutput, ...]:
    """Return the outputs that are not written if they are bound by address, and their sources.

    An output with the name of an input is that input: ONNX Runtime returns the fed array and leaves the bound memory
    unchanged. Of an output that is listed twice only the latest address is bound. Both are valid ONNX, and newer
    exporters of PyTorch write the first. Outputs that are weights, constants, or inputs passed on by nodes, branches or
    loops are written (tests/contract/test_engine.py).
    """
    inputs = {spec.name: index for index, spec in enumerate(specs.inputs)}
    earlier: dict[str, int] = {}
    copied = []
    for index, spec in enumerate(specs.outputs):
        if spec.name in inputs:
            copied.append(CopiedOutput(index, inputs[spec.name], is_input=True))
        elif earlier.setdefault(spec.name, index) != index:
            copied.append(CopiedOutput(index, earlier[spec.name], is_input=False))
    return tuple(copied)


def derive_specs(
    model: str, inputs: Sequence[NodeInfo], outputs: Sequence[NodeInfo], max_batch_size: int | None
) -> BatchedSpecs:
    """Apply the module's rules. Raises ModelFileError, naming `model` and the tensor."""
    if max_batch_size is not None and max_batch_size < 0:
        raise ModelFileError(f"{model}: max_batch_size is {max_batch_size}, but must be at least 0")
    nodes = (*inputs, *outputs)
    if max_batch_size == 0:
        return _without_batch(model, inputs, outputs)
    if nodes and all(node.shape and not isinstance(node.shape[0], int) for node in nodes):
        return _with_batch(model, inputs, outputs, max_batch_size or DEFAULT_MAX_BATCH_SIZE, None)
    fixed_rows = _common_first_dimension(nodes)
    has_vector = max_batch_size is None and any(len(node.shape) == 1 for node in inputs)
    if fixed_rows is not None and fixed_rows in (1, max_batch_size) and not has_vector:
        _check_limit(model, nodes, fixed_rows, max_batch_size)
        return _with_batch(model, inputs, outputs, fixed_rows, fixed_rows)
    _check_limit(model, nodes, 1, max_batch_size)
    return _without_batch(model, inputs, outputs)


def _common_first_dimension(nodes: Iterable[NodeInfo]) -> int | None:
    first = {node.shape[0] if node.shape else None for node in nodes}
    only = first.pop() if len(first) == 1 else None
    return only if isinstance(only, int) else None


def _check_limit(model: str, nodes: Iterable[NodeInfo], limit: int, max_batch_size: int | None) -> None:
    if max_batch_size is None or max_batch_size <= limit:
        return
    fixed = next(node for node in nodes if not node.shape or isinstance(node.shape[0], int))
    raise ModelFileError(
        f"{model}: max_batch_size is {max_batch_size}, but the first dimension of {fixed.name!r} (shape "
        f"{list(fixed.shape)}) does not vary: export it with a dynamic batch dimension or set max_batch_size to {limit}"
    )


def _with_batch(
    model: str, inputs: Sequence[NodeInfo], outputs: Sequence[NodeInfo], max_batch_size: int, fixed_rows: int | None
) -> BatchedSpecs:
    specs = EngineSpecs(
        inputs=tuple(_spec(model, node, node.shape[1:]) for node in inputs),
        outputs=tuple(_spec(model, node, node.shape[1:]) for node in outputs),
        max_batch_size=max_batch_size,
    )
    return BatchedSpecs(specs, fixed_rows)


def _without_batch(model: str, inputs: Sequence[NodeInfo], outputs: Sequence[NodeInfo]) -> BatchedSpecs:
    specs = EngineSpecs(
        inputs=tuple(_spec(model, node, node.shape) for node in inputs),
        outputs=tuple(_spec(model, node, node.shape) for node in outputs),
        max_batch_size=1,
        has_batch_dimension=False,
    )
    return BatchedSpecs(specs, None)


def _spec(model: str, node: NodeInfo, shape: tuple[int | str | None, ...]) -> TensorSpec:
    dtype = _DTYPE_BY_ONNX_TYPE.get(node.type)
    if dtype is None:
        raise ModelFileError(
            f"{model}: tensor {node.name!r} has type {node.type}, which the Open Inference Protocol does not have: "
            f"{'cast it in the model' if node.type.startswith('tensor(') else 'make it tensors in the model'}"
        )
    return TensorSpec(node.name, dtype, tuple(dim if isinstance(dim, int) else -1 for dim in shape), node.is_optional)

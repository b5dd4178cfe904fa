"""A deserialized plan: its tensors, its profiles, and the choice of a profile for a batch size."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from forebay_server.engines.errors import ModelFileError
from forebay_server.engines.onnx_specs import BatchedSpecs, NodeInfo, derive_specs
from forebay_server.engines.trt.library import Library

_ONNX_TYPE_BY_NAME = {
    "FLOAT": "tensor(float)",
    "HALF": "tensor(float16)",
    "INT8": "tensor(int8)",
    "INT32": "tensor(int32)",
    "INT64": "tensor(int64)",
    "UINT8": "tensor(uint8)",
    "BOOL": "tensor(bool)",
}


@dataclass(frozen=True, slots=True)
class BatchRange:
    """The rows that an optimization profile covers, and those that it is best at."""

    index: int
    least: int
    best: int
    most: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The properties of a plan that an engine needs.

    Attributes:
        layout: specs, and the computation of shapes from a batch size.
        ranges: by profile.
        activation_bytes: activation memory of one execution at a time, for every profile.
    """

    layout: BatchedSpecs
    ranges: tuple[BatchRange, ...]
    activation_bytes: int

    def profile_for(self, batch_size: int) -> BatchRange | None:
        """Return the profile that covers a batch size and was optimized for the nearest one."""
        fitting = [each for each in self.ranges if each.least <= batch_size <= each.most]
        return min(fitting, key=lambda each: abs(each.best - batch_size), default=None)


def deserialize(library: Library, data: bytes, path: Path, *, allows_host_code: bool) -> tuple[Any, Any]:
    """Return (runtime, engine). Needs a GPU. Raises ModelFileError for a truncated, foreign or older plan."""
    mark = library.log.mark()
    trt_runtime = library.trt.Runtime(library.logger)
    trt_runtime.engine_host_code_allowed = allows_host_code
    trt_engine = trt_runtime.deserialize_cuda_engine(data)
    if trt_engine is None:
        raise ModelFileError(
            f"{path}: {library.name} {library.version} cannot load this plan: {library.errors_of(mark)}. A plan runs "
            "with the version and on the GPU that it was built for: build it here with `forebay engine build`"
        )
    return trt_runtime, trt_engine


def read_plan(library: Library, trt_engine: Any, path: Path, max_batch_size: int | None) -> Plan:  # noqa: ANN401
    """Describe a plan. Raises ModelFileError, naming the tensor, if it cannot be served."""
    trt = library.trt
    inputs: list[NodeInfo] = []
    outputs: list[NodeInfo] = []
    for index in range(trt_engine.num_io_tensors):
        name = trt_engine.get_tensor_name(index)
        node = _node(trt, trt_engine, name, path)
        (inputs if trt_engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT else outputs).append(node)
    outputs = _resolved(trt, trt_engine, inputs, outputs)
    ranges = _ranges(trt_engine, inputs)
    limit = max((each.most for each in ranges), default=None) if _is_dynamic(inputs) else None
    layout = derive_specs(str(path), inputs, outputs, _limit_rows(path, limit, max_batch_size))
    for spec in layout.specs.outputs:
        if not spec.is_fixed:
            raise ModelFileError(
                f"{path}: output {spec.name!r} has shape {spec.shape}: a size that depends on the data is not served; "
                "export the model so that its outputs have a fixed size (NMS outside the graph)"
            )
    return Plan(layout, ranges, activation_bytes(trt_engine))


def activation_bytes(trt_engine: Any) -> int:  # noqa: ANN401
    """Return the memory for activations of the most demanding profile. Older 10.x has the first name only."""
    if hasattr(trt_engine, "get_device_memory_size_for_profile_v2"):
        sizes = [
            trt_engine.get_device_memory_size_for_profile_v2(index)
            for index in range(max(1, trt_engine.num_optimization_profiles))
        ]
    else:
        sizes = [trt_engine.device_memory_size]
    return int(max(sizes))


def _node(trt: Any, trt_engine: Any, name: str, path: Path) -> NodeInfo:  # noqa: ANN401
    if trt_engine.get_tensor_location(name) != trt.TensorLocation.DEVICE:
        raise ModelFileError(f"{path}: {name!r} is a shape tensor: export the model without shape inputs")
    if trt_engine.get_tensor_format(name) != trt.TensorFormat.LINEAR:
        raise ModelFileError(f"{path}: {name!r} is not laid out linearly: build the plan with linear tensors")
    type_name = trt_engine.get_tensor_dtype(name).name
    shape = tuple(dim if dim >= 0 else None for dim in trt_engine.get_tensor_shape(name))
    return NodeInfo(name, _ONNX_TYPE_BY_NAME.get(type_name, type_name), shape)


def _resolved(trt: Any, trt_engine: Any, inputs: list[NodeInfo], outputs: list[NodeInfo]) -> list[NodeInfo]:  # noqa: ANN401
    """Fill in inner dimensions that the plan leaves open, but that follow from the inputs' shapes."""
    if all(dim is not None for node in outputs for dim in node.shape[1:]):
        return outputs
    trt_context = trt_engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    if trt_context is None:
        return outputs
    for node in inputs:
        if None in node.shape:
            trt_context.set_input_shape(node.name, tuple(trt_engine.get_tensor_profile_shape(node.name, 0)[1]))
    try:
        trt_context.infer_shapes()
    except RuntimeError:
        return outputs
    return [_filled(node, tuple(trt_context.get_tensor_shape(node.name))) for node in outputs]


def _filled(node: NodeInfo, shape: tuple[int, ...]) -> NodeInfo:
    if len(shape) != len(node.shape):
        return node
    inner = (
        dim if dim is not None or known < 0 else known for dim, known in zip(node.shape[1:], shape[1:], strict=True)
    )
    return NodeInfo(node.name, node.type, (*node.shape[:1], *inner))


def _is_dynamic(inputs: list[NodeInfo]) -> bool:
    return any(node.shape and node.shape[0] is None for node in inputs)


def _ranges(trt_engine: Any, inputs: list[NodeInfo]) -> tuple[BatchRange, ...]:  # noqa: ANN401
    ranges = []
    for index in range(trt_engine.num_optimization_profiles):
        least, best, most = 1, 1, np.iinfo(np.int32).max
        for node in inputs:
            if node.shape and node.shape[0] is None:
                shapes = trt_engine.get_tensor_profile_shape(node.name, index)
                low, opt, high = (next(iter(shape)) for shape in shapes)
                least, best, most = max(least, low), max(best, opt), min(most, high)
        ranges.append(BatchRange(index, least, best, most))
    return tuple(ranges)


def _limit_rows(path: Path, limit: int | None, max_batch_size: int | None) -> int | None:
    if limit is None:
        return max_batch_size
    if max_batch_size is not None and max_batch_size > limit:
        raise ModelFileError(
            f"{path}: max_batch_size is {max_batch_size}, but its optimization profiles end at {limit} rows: build "
            f"it with --max-batch {max_batch_size}, or set max_batch_size to {limit}"
        )
    return limit if max_batch_size is None else max_batch_size

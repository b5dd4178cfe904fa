"""A model version as clients of the Open Inference Protocol see it, computed once per version.

Shapes here are those of the configuration (`dims`), without the batch dimension; the engine's own differ where there is
a `reshape`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from weakref import WeakKeyDictionary

from forebay.wire import inference_pb2 as pb
from forebay.wire.model_config_pb2 import ModelInput, ModelOutput
from forebay_server.engines.datatypes import NAME_BY_DTYPE
from forebay_server.engines.engine import TensorSpec
from forebay_server.service.models.served import ServedVersion


@dataclass(frozen=True)
class TensorSchema:
    """One input or output.

    Attributes:
        name: of the tensor.
        index: in the engine's order.
        datatype: name in the protocol.
        shape: for clients, without the batch dimension; -1 where it varies.
        spec: of the engine.
        reshape: the engine's shape in the configuration, if it differs from the clients'.
        labels: names of the classes, if it has some.
        is_bound: whether it lies in a fixed buffer: other outputs have the shapes that the engine gave them.
    """

    name: str
    index: int
    datatype: str
    shape: tuple[int, ...]
    spec: TensorSpec
    reshape: tuple[int, ...] | None = None
    labels: tuple[str, ...] = ()
    is_bound: bool = True

    @cached_property
    def is_fixed(self) -> bool:
        """Whether every row has the same, known size."""
        return self.is_bound and self.spec.is_fixed

    def to_engine(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the engine's shape of a tensor that has `shape` for clients."""
        return shape if self.reshape is None else _reshaped(shape, self.shape, self.reshape)

    def to_client(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape for clients of a tensor that has `shape` in the engine."""
        if self.reshape is None or len(shape) != len(self.reshape):  # a rank that the model did not declare
            return shape
        return _reshaped(shape, self.reshape, self.shape)


class ModelSchema:
    """One version.

    Attributes:
        name: of the model.
        version: decimal number.
        has_batch: whether shapes begin with the number of rows.
        max_batch_size: most rows of a request.
        inputs: by name, in the engine's order.
        outputs: by name, in the engine's order.
    """

    def __init__(self, version: ServedVersion) -> None:
        specs, config = version.specs, version.description.config
        self.name = version.name
        self.version = version.version
        self.has_batch = specs.has_batch_dimension
        self.max_batch_size = specs.max_batch_size
        self.inputs = _tensors(specs.inputs, config.input)
        self.outputs = _tensors(specs.outputs, config.output)
        for name, tensor in self.outputs.items():
            self.outputs[name] = replace(tensor, labels=_labels(version, name), is_bound=specs.is_fixed)
        self.is_fixed = specs.is_fixed
        self.platform = config.platform

    def metadata(self, versions: list[str]) -> pb.ModelMetadataResponse:
        """Return the answer of ModelMetadata."""
        return pb.ModelMetadataResponse(
            name=self.name,
            versions=versions,
            platform=self.platform,
            inputs=[self._tensor_metadata(tensor) for tensor in self.inputs.values()],
            outputs=[self._tensor_metadata(tensor) for tensor in self.outputs.values()],
        )

    def _tensor_metadata(self, tensor: TensorSchema) -> pb.ModelMetadataResponse.TensorMetadata:
        shape = (-1, *tensor.shape) if self.has_batch else tensor.shape
        return pb.ModelMetadataResponse.TensorMetadata(name=tensor.name, datatype=tensor.datatype, shape=shape)


def _reshaped(shape: tuple[int, ...], source: tuple[int, ...], target: tuple[int, ...]) -> tuple[int, ...]:
    """Carry the varying dimensions over from one pattern to another: the first to the first, and so on."""
    varying = iter([dim for dim, pattern in zip(shape, source, strict=True) if pattern == -1])
    return tuple(next(varying) if dim == -1 else dim for dim in target)


def _tensors(
    specs: tuple[TensorSpec, ...], written: Sequence[ModelInput] | Sequence[ModelOutput]
) -> dict[str, TensorSchema]:
    by_name: dict[str, ModelInput | ModelOutput] = {tensor.name: tensor for tensor in written}
    return {spec.name: _tensor_schema(index, spec, by_name.get(spec.name)) for index, spec in enumerate(specs)}


def _tensor_schema(index: int, spec: TensorSpec, written: ModelInput | ModelOutput | None) -> TensorSchema:
    shape, reshape = spec.shape, None
    if written is not None and written.HasField("reshape"):
        shape, reshape = tuple(written.dims), tuple(written.reshape.shape)
    elif written is not None and written.dims:  # they may be freer than the model, and are not used then
        shape = tuple(dim if known == -1 else known for dim, known in zip(written.dims, spec.shape, strict=True))
    return TensorSchema(spec.name, index, NAME_BY_DTYPE[spec.dtype], shape, spec, reshape)


def _labels(version: ServedVersion, output: str) -> tuple[str, ...]:
    task = version.description.task
    return version.description.labels.get(output) or (() if task is None else task.labels)


_schema_by_version: WeakKeyDictionary[ServedVersion, ModelSchema] = WeakKeyDictionary()


def schema_of(version: ServedVersion) -> ModelSchema:
    """Return the schema of a version. Thread: the event loop's."""
    schema = _schema_by_version.get(version)
    if schema is None:
        schema = _schema_by_version[version] = ModelSchema(version)
    return schema

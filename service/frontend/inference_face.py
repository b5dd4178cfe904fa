"""What a model version looks like to clients of the Open Inference Protocol, worked out once per version.

Shapes here are those of the configuration (`dims`), without the batch dimension; the engine's own differ where a
`reshape` says so.
"""

from dataclasses import dataclass
from functools import cached_property
from weakref import WeakKeyDictionary

from engines.datatypes import NAME_BY_DTYPE
from engines.engine import TensorSpec
from forebay.wire import inference_pb2 as pb
from service.models.version import ModelVersion

PLATFORM_BY_BACKEND = {
    "onnxruntime": "onnxruntime_onnx",
    "tensorrt": "tensorrt_plan",
    "torch": "pytorch_libtorch",
    "simulated": "simulated",
}


@dataclass(frozen=True)
class TensorFace:
    """One input or output.

    Attributes:
        name: of the tensor.
        index: its place in the engine's order.
        datatype: name in the protocol.
        shape: what clients send or get, without the batch dimension; -1 where it varies.
        spec: what the engine has.
    """

    name: str
    index: int
    datatype: str
    shape: tuple[int, ...]
    spec: TensorSpec

    @cached_property
    def is_fixed(self) -> bool:
        """Whether every row has the same, known size."""
        return self.spec.is_fixed

    @cached_property
    def row_bytes(self) -> int:
        """Bytes of one row, of a fixed tensor."""
        return self.spec.row_bytes


class ModelFace:
    """One version.

    Attributes:
        name: of the model.
        version: decimal number.
        has_batch: whether shapes begin with the number of rows.
        max_batch_size: most rows of a request.
        inputs: by name, in the engine's order.
        outputs: by name, in the engine's order.
    """

    def __init__(self, version: ModelVersion) -> None:
        specs, config = version.specs, version.description.config
        self.name = version.name
        self.version = version.version
        self.has_batch = specs.has_batch_dimension
        self.max_batch_size = specs.max_batch_size
        self.inputs = _faces(specs.inputs, {tensor.name: tuple(tensor.dims) for tensor in config.input})
        self.outputs = _faces(specs.outputs, {tensor.name: tuple(tensor.dims) for tensor in config.output})
        self.is_fixed = all(face.is_fixed for face in (*self.inputs.values(), *self.outputs.values()))
        self.labels = _labels(version)
        self.platform = config.platform or PLATFORM_BY_BACKEND.get(version.description.backend, "")

    def metadata(self, versions: list[str]) -> pb.ModelMetadataResponse:
        """Return the answer of ModelMetadata."""
        return pb.ModelMetadataResponse(
            name=self.name,
            versions=versions,
            platform=self.platform,
            inputs=[self._tensor(face) for face in self.inputs.values()],
            outputs=[self._tensor(face) for face in self.outputs.values()],
        )

    def _tensor(self, face: TensorFace) -> pb.ModelMetadataResponse.TensorMetadata:
        shape = (-1, *face.shape) if self.has_batch else face.shape
        return pb.ModelMetadataResponse.TensorMetadata(name=face.name, datatype=face.datatype, shape=shape)


def _faces(specs: tuple[TensorSpec, ...], dims: dict[str, tuple[int, ...]]) -> dict[str, TensorFace]:
    return {
        spec.name: TensorFace(spec.name, index, NAME_BY_DTYPE[spec.dtype], dims.get(spec.name) or spec.shape, spec)
        for index, spec in enumerate(specs)
    }


def _labels(version: ModelVersion) -> tuple[str, ...]:
    task = version.description.task
    return () if task is None else task.labels


_faces_by_version: WeakKeyDictionary[ModelVersion, ModelFace] = WeakKeyDictionary()


def face_of(version: ModelVersion) -> ModelFace:
    """Return the face of a version. Thread: the event loop's."""
    face = _faces_by_version.get(version)
    if face is None:
        face = _faces_by_version[version] = ModelFace(version)
    return face

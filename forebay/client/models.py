"""The models of a server, as its repository index lists them.

The messages are imported when they are needed: a program that only streams has none of the Open Inference Protocol.
"""

from dataclasses import dataclass

METHOD = "/inference.GRPCInferenceService/RepositoryIndex"


@dataclass(frozen=True, slots=True)
class Model:
    """One version of a model.

    Attributes:
        name: as `stream` and `infer` take it.
        version: decimal number; empty if no version was ever loaded.
        state: READY, LOADING, UNLOADING, UNAVAILABLE, or empty.
        reason: why it is not ready; empty if it is.
    """

    name: str
    version: str
    state: str
    reason: str

    @property
    def is_ready(self) -> bool:
        """Whether it answers frames."""
        return self.state == "READY"


def request() -> bytes:
    """Return the encoded request for all models."""
    from forebay.wire import inference_pb2 as wire

    return wire.RepositoryIndexRequest().SerializeToString()


def models_of(data: bytes) -> tuple[Model, ...]:
    """Return the models of an encoded response, in the server's order."""
    from forebay.wire import inference_pb2 as wire

    response = wire.RepositoryIndexResponse.FromString(data)
    return tuple(Model(item.name, item.version, item.state, item.reason) for item in response.models)

"""The RPCs of inference.GRPCInferenceService without inference: health, metadata, configuration, and the groups.

Thread: the event loop's.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import grpc

from forebay.wire import inference_pb2 as pb
from forebay_server.service.frontend.control.rpc import OfLongMessage, OfPeer, Rpc, RpcGroup, handler_of
from forebay_server.service.frontend.open_inference.lookup import ModelLookup
from forebay_server.service.frontend.open_inference.schema import schema_of
from forebay_server.service.version import VERSION

Handlers: TypeAlias = "Mapping[str, grpc.RpcMethodHandler[Any, Any]]"
SERVER_NAME = "forebay"
EXTENSIONS = (
    "classification",
    "sequence",
    "model_repository",
    "model_repository(unload_dependents)",
    "schedule_policy",
    "model_configuration",
    "system_shared_memory",
    "cuda_shared_memory",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "trace",
    "logging",
)


class ModelRpcs:
    """Every RPC except the two of inference.

    Args:
        lookup: finds versions.
        serving: serving versions, by model.
        is_ready: whether the server takes requests.
        more: the other RPCs.
    """

    def __init__(
        self,
        lookup: ModelLookup,
        serving: Callable[[], Mapping[str, list[str]]],
        is_ready: Callable[[], bool],
        *more: RpcGroup,
    ) -> None:
        self._more = more
        self._lookup = lookup
        self._serving = serving
        self._is_ready = is_ready

    def methods(self) -> Handlers:
        """Return the handlers by name."""
        rpcs: dict[str, tuple[Rpc | OfPeer | OfLongMessage, Any]] = {
            "ServerLive": (self.server_live, pb.ServerLiveRequest),
            "ServerReady": (self.server_ready, pb.ServerReadyRequest),
            "ModelReady": (self.model_ready, pb.ModelReadyRequest),
            "ServerMetadata": (self.server_metadata, pb.ServerMetadataRequest),
            "ModelMetadata": (self.model_metadata, pb.ModelMetadataRequest),
            "ModelConfig": (self.model_config, pb.ModelConfigRequest),
        }
        for group in self._more:
            rpcs.update(group.rpcs())
        return {name: handler_of(rpc, request) for name, (rpc, request) in rpcs.items()}

    def server_live(self, _: pb.ServerLiveRequest) -> pb.ServerLiveResponse:
        """Answer that the process lives."""
        return pb.ServerLiveResponse(live=True)

    def server_ready(self, _: pb.ServerReadyRequest) -> pb.ServerReadyResponse:
        """Answer whether requests are accepted."""
        return pb.ServerReadyResponse(ready=self._is_ready())

    def model_ready(self, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        """Answer whether a model is ready; an unknown one is not."""
        return pb.ModelReadyResponse(ready=self._lookup.is_ready(request.name, request.version))

    def server_metadata(self, _: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:
        """Answer with the server's name, version and extensions."""
        return pb.ServerMetadataResponse(name=SERVER_NAME, version=VERSION, extensions=EXTENSIONS)

    def model_metadata(self, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
        """Answer with a model's inputs and outputs."""
        version = self._lookup.find(request.name, request.version)
        versions = [request.version] if request.version else sorted(self._serving().get(version.name, []), key=int)
        return schema_of(version).metadata(versions)

    def model_config(self, request: pb.ModelConfigRequest) -> pb.ModelConfigResponse:
        """Return the normalised configuration."""
        version = self._lookup.find(request.name, request.version)
        return pb.ModelConfigResponse(config=version.description.config)

"""RepositoryIndex, RepositoryModelLoad and RepositoryModelUnload. Loading runs on threads of the lifecycle's."""

import asyncio
from typing import Any

import grpc

from forebay.wire import inference_pb2 as pb
from service.frontend.inference_errors import InferenceError
from service.frontend.inference_rpcs import OfLongMessage, Rpc
from service.models.lifecycle import LoadError, ModelLifecycle

NOT_EXPLICIT = "explicit model load / unload is not allowed if polling is enabled"
MAX_SHOWN = 64
MAX_CONFIG_BYTES = 64 << 10  # of JSON, whose parser lets nobody else run: at most 6 ms


class RepositoryRpcs:
    """See the module. Thread: the event loop's.

    Args:
        lifecycle: loads and unloads.
    """

    def __init__(self, lifecycle: ModelLifecycle) -> None:
        self._lifecycle = lifecycle

    def rpcs(self) -> dict[str, tuple[Rpc | OfLongMessage, Any]]:
        """Return the RPCs by name."""
        return {
            "RepositoryIndex": (self.index, pb.RepositoryIndexRequest),
            "RepositoryModelLoad": (OfLongMessage(self.load), pb.RepositoryModelLoadRequest),
            "RepositoryModelUnload": (self.unload, pb.RepositoryModelUnloadRequest),
        }

    async def index(self, request: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
        """List models and their states."""
        _refuse_name(request.repository_name)
        states = await asyncio.to_thread(self._lifecycle.index, ready_only=request.ready)
        return pb.RepositoryIndexResponse(
            models=[
                pb.RepositoryIndexResponse.ModelIndex(
                    name=state.name, version=state.version, state=state.state, reason=state.reason
                )
                for state in states
            ]
        )

    async def load(self, request: pb.RepositoryModelLoadRequest) -> pb.RepositoryModelLoadResponse:
        """Load a model, or load it again; answers when it serves."""
        self._check(request.repository_name)
        config: str | None = None
        for key, parameter in request.parameters.items():
            if key != "config":
                raise _bad_load_parameter(key)
            if parameter.WhichOneof("parameter_choice") != "string_param":
                raise InferenceError(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    "invalid value type for 'config' parameter, expected string_param.",
                )
            if parameter.ByteSize() > MAX_CONFIG_BYTES:
                raise InferenceError(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    f"parameter 'config' has more than {MAX_CONFIG_BYTES} bytes: put the configuration into the "
                    "repository",
                )
            config = parameter.string_param
        try:
            await asyncio.wrap_future(self._lifecycle.submit_load(request.model_name, config))
        except LoadError as error:
            raise InferenceError(grpc.StatusCode.INTERNAL, str(error)) from None
        return pb.RepositoryModelLoadResponse()

    async def unload(self, request: pb.RepositoryModelUnloadRequest) -> pb.RepositoryModelUnloadResponse:
        """Unload a model; answers when nobody can reach it any more, while what it has is still answered."""
        self._check(request.repository_name)
        for key, parameter in request.parameters.items():
            if key != "unload_dependents":
                raise InferenceError(
                    grpc.StatusCode.INVALID_ARGUMENT, f"unrecognized unload parameter '{key[:MAX_SHOWN]}'."
                )
            if parameter.WhichOneof("parameter_choice") != "bool_param":
                raise InferenceError(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    "invalid value type for 'unload_dependents' parameter, expected bool_param.",
                )
        try:
            await asyncio.wrap_future(self._lifecycle.submit_unload(request.model_name))
        except LoadError as error:
            raise InferenceError(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from None
        return pb.RepositoryModelUnloadResponse()

    def _check(self, repository_name: str) -> None:
        _refuse_name(repository_name)
        if self._lifecycle.mode != "explicit":
            raise InferenceError(grpc.StatusCode.UNAVAILABLE, NOT_EXPLICIT)


def _refuse_name(repository_name: str) -> None:
    if repository_name:
        raise InferenceError(grpc.StatusCode.UNIMPLEMENTED, "'repository_name' specification is not supported")


def _bad_load_parameter(key: str) -> InferenceError:
    if key.startswith("file:"):
        return InferenceError(
            grpc.StatusCode.UNIMPLEMENTED, "files cannot be sent with a load request: put them into the repository"
        )
    return InferenceError(grpc.StatusCode.INVALID_ARGUMENT, f"unrecognized load parameter '{key[:MAX_SHOWN]}'.")

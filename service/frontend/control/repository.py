"""RepositoryIndex, RepositoryModelLoad and RepositoryModelUnload. Loading runs on threads of the lifecycle's."""

import asyncio
from typing import Any

import grpc

from forebay.wire import inference_pb2 as pb
from forebay_server.service.frontend.control.rpc import OfLongMessage, Rpc
from forebay_server.service.frontend.open_inference.errors import InferenceError
from forebay_server.service.models.lifecycle import LoadError, ModelLifecycle

NOT_EXPLICIT = "explicit model load / unload is not allowed if polling is enabled"
NO_FILES = (
    "files cannot be sent with a load request: put them into the repository, or have the operator set allow_model_files"
)
FILE_PREFIX = "file:"
MAX_SHOWN = 64


class RepositoryRpcs:
    """See the module. Thread: the event loop's.

    Args:
        lifecycle: loads and unloads.
        allows_files: whether a load may bring the files of the model.
    """

    def __init__(self, lifecycle: ModelLifecycle, *, allows_files: bool) -> None:
        self._lifecycle = lifecycle
        self._allows_files = allows_files

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
        files: dict[str, bytes] = {}
        for key, parameter in request.parameters.items():
            if key == "config":
                config = _config_of(parameter)
            elif key.startswith(FILE_PREFIX):
                files[key.removeprefix(FILE_PREFIX)] = self._file_of(key, parameter)
            else:
                raise _invalid(f"unrecognized load parameter '{key[:MAX_SHOWN]}'.")
        try:
            await asyncio.wrap_future(self._lifecycle.submit_load(request.model_name, config, files))
        except LoadError as error:
            raise InferenceError(grpc.StatusCode.INTERNAL, str(error)) from None
        return pb.RepositoryModelLoadResponse()

    async def unload(self, request: pb.RepositoryModelUnloadRequest) -> pb.RepositoryModelUnloadResponse:
        """Unload a model; answers when no new request reaches it, while accepted ones are still answered."""
        self._check(request.repository_name)
        for key, parameter in request.parameters.items():
            if key != "unload_dependents":
                raise _invalid(f"unrecognized unload parameter '{key[:MAX_SHOWN]}'.")
            _check_kind("unload_dependents", parameter, "bool_param")
        try:
            await asyncio.wrap_future(self._lifecycle.submit_unload(request.model_name))
        except LoadError as error:
            raise InferenceError(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from None
        return pb.RepositoryModelUnloadResponse()

    def _file_of(self, key: str, parameter: pb.ModelRepositoryParameter) -> bytes:
        if not self._allows_files:
            raise InferenceError(grpc.StatusCode.UNIMPLEMENTED, NO_FILES)
        _check_kind(key[:MAX_SHOWN], parameter, "bytes_param")
        content: bytes = parameter.bytes_param
        return content

    def _check(self, repository_name: str) -> None:
        check_change(repository_name, self._lifecycle.mode)


def check_change(repository_name: str, mode: str) -> None:
    """Raise InferenceError if the model control mode allows no load or unload."""
    _refuse_name(repository_name)
    if mode != "explicit":
        raise InferenceError(grpc.StatusCode.UNAVAILABLE, NOT_EXPLICIT)


def check_files(request: pb.RepositoryModelLoadRequest) -> None:
    """Raise InferenceError if a load brings files: the settings do not allow them."""
    if any(key.startswith(FILE_PREFIX) for key in request.parameters):
        raise InferenceError(grpc.StatusCode.UNIMPLEMENTED, NO_FILES)


def _refuse_name(repository_name: str) -> None:
    if repository_name:
        raise InferenceError(grpc.StatusCode.UNIMPLEMENTED, "'repository_name' specification is not supported")


def _config_of(parameter: pb.ModelRepositoryParameter) -> str:
    _check_kind("config", parameter, "string_param")
    config: str = parameter.string_param
    return config


def _check_kind(key: str, parameter: pb.ModelRepositoryParameter, kind: str) -> None:
    if parameter.WhichOneof("parameter_choice") != kind:
        raise _invalid(f"invalid value type for '{key}' parameter, expected {kind}.")


def _invalid(message: str) -> InferenceError:
    return InferenceError(grpc.StatusCode.INVALID_ARGUMENT, message)

"""Lists, loads and unloads the models of a running server: the client's side of three RPCs.

Not the server's side, which is `service.frontend.control.repository`. For the command line, in a separate process.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

from forebay.connect_words import connect_words
from forebay.pem import authorities_fault
from forebay.wire import inference_pb2 as pb
from forebay.wire.inference_pb2_grpc import GRPCInferenceServiceStub
from forebay_server.service.restricted import REFUSAL, Headers, how_to_mend

NOT_EXPLICIT = "explicit model load"  # how the refusal of a server without explicit control begins


class ControlError(Exception):
    """A refusal of the server, or the lack of an answer.

    Args:
        message: one line.
        is_unreachable: no server answered.
    """

    def __init__(self, message: str, *, is_unreachable: bool = False) -> None:
        super().__init__(message)
        self.is_unreachable = is_unreachable


@dataclass(frozen=True, slots=True)
class IndexLine:
    """One model version in the server's index."""

    name: str
    version: str
    state: str
    reason: str


class ModelControl:
    """Calls to one server; each opens a connection of its own.

    Args:
        address: host:port or unix:PATH.
        tls_ca: PEM authorities; None for plain text.
        timeout_s: for each call.
        headers: that every call brings.
    """

    def __init__(self, address: str, tls_ca: Path | None, timeout_s: float, headers: Headers = ()) -> None:
        self._address = address
        self._tls_ca = tls_ca
        self._timeout_s = timeout_s
        self._headers = headers

    def index(self) -> Sequence[IndexLine]:
        """Return the server's index. Raises ControlError."""
        response = self._call("RepositoryIndex", pb.RepositoryIndexRequest())
        return [IndexLine(model.name, model.version, model.state, model.reason) for model in response.models]

    def load(self, name: str) -> None:
        """Load a model, or load it again; returns when it serves. Raises ControlError."""
        self._call("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name=name))

    def unload(self, name: str) -> None:
        """Unload a model. Raises ControlError."""
        self._call("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name=name))

    def _channel(self) -> grpc.Channel:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        if self._tls_ca is None:
            return grpc.insecure_channel(self._address, options)
        try:
            authorities = self._tls_ca.read_bytes()
        except OSError as error:
            raise ControlError(f"cannot read {self._tls_ca}: {error.strerror}") from None
        if problem := authorities_fault(self._tls_ca, authorities):
            raise ControlError(problem)
        return grpc.secure_channel(self._address, grpc.ssl_channel_credentials(authorities), options)

    def _call(self, method: str, request: object) -> pb.RepositoryIndexResponse:
        try:
            with self._channel() as channel:
                stub = GRPCInferenceServiceStub(channel)  # type: ignore[no-untyped-call]  # generated
                call = getattr(stub, method)
                response: pb.RepositoryIndexResponse = call(request, timeout=self._timeout_s, metadata=self._headers)
                return response
        except grpc.RpcError as error:
            words = connect_words(error.details() or error.code().name)
            if words.startswith(REFUSAL):
                raise ControlError(f"{words}: {how_to_mend('model-repository')}") from None
            if words.startswith(NOT_EXPLICIT):
                raise ControlError(f"{words}; start the server with --model-control-mode explicit") from None
            is_unreachable = error.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
            raise ControlError(words, is_unreachable=is_unreachable) from None

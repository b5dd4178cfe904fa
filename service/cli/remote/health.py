"""Asks a server's health, as a container's health check does: one call, quickly, from a process of its own.

Not the server's side, which is `service.frontend.health`.
"""

from dataclasses import dataclass
from pathlib import Path

import grpc

from forebay_server.service.restricted import REFUSAL, Headers, how_to_mend

CHECK = "/grpc.health.v1.Health/Check"
_SERVICE_FIELD = b"\x0a"  # HealthCheckRequest.service, length-delimited
_STATUS_FIELD = 0x08  # HealthCheckResponse.status, varint
_NAMES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")


class HealthError(Exception):
    """No answer to the question; one line that says why.

    Args:
        message: one line.
        is_refusal: a server answered, and does not let this call through.
    """

    def __init__(self, message: str, *, is_refusal: bool = False) -> None:
        super().__init__(message)
        self.is_refusal = is_refusal


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files and the name to look for in the server's certificate.

    Attributes:
        ca: authorities; None for those of gRPC.
        cert: own certificate, with `key`, where the server asks for one.
        key: its private key.
        server_name: in the certificate, if it is not the address's.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    server_name: str | None = None


def check_health(address: str, model: str, timeout_s: float, tls: TlsFiles | None = None, headers: Headers = ()) -> str:
    """Return the status of a model, or of the server for an empty name, as grpc.health.v1 calls it.

    The two messages are a string and a number; protobuf would take longer to load than the call takes.

    Args:
        address: host:port or unix:PATH.
        model: 1 to 127 bytes, or empty.
        timeout_s: for everything.
        tls: None for plain text.
        headers: metadata of the call.

    Raises:
        HealthError: no server answered, or not as grpc.health.v1, or the call is restricted.
    """
    name = model.encode()[:127]
    request = _SERVICE_FIELD + bytes([len(name)]) + name if name else b""
    with _channel(address, tls) as channel:
        try:
            response: bytes = channel.unary_unary(CHECK, None, None)(request, timeout=timeout_s, metadata=headers)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return "SERVICE_UNKNOWN"
            if (error.details() or "").startswith(REFUSAL):
                raise HealthError(f"{error.details()}: {how_to_mend('health')}", is_refusal=True) from None
            raise HealthError(f"{error.code().name}: {error.details()}") from None
    if not response:
        return _NAMES[0]
    if response[0] != _STATUS_FIELD or len(response) != 2 or response[1] >= len(_NAMES):
        raise HealthError("the answer is none of grpc.health.v1")
    return _NAMES[response[1]]


def _channel(address: str, tls: TlsFiles | None) -> grpc.Channel:
    options: list[tuple[str, int | str]] = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    if tls is None:
        return grpc.insecure_channel(address, options)
    if tls.server_name is not None:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    try:
        ca, key, cert = (None if path is None else path.read_bytes() for path in (tls.ca, tls.key, tls.cert))
    except OSError as error:
        raise HealthError(f"cannot read {error.filename}: {error.strerror}") from None
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(ca, key, cert), options)

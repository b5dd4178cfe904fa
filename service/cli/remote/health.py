"""Asks a server's health, as a container's health check does: one call, quickly, from a process of its own.

Most answers are plain, and `probe` gets them with a socket. `grpc_health` gets the others with gRPC, whose import
takes a tenth of a second of CPU: refusals with words, broken answers, unusual addresses and certificates. Not the
server's side, which is `service.frontend.health`.
"""

from typing import NamedTuple

from forebay_server.service.clock import MonotonicClock

CHECK = "/grpc.health.v1.Health/Check"
_SERVICE_FIELD = b"\x0a"  # HealthCheckRequest.service, length-delimited
_STATUS_FIELD = 0x08  # HealthCheckResponse.status, varint
_NAMES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
_LEAST_S = 0.05  # for the second attempt, where the first took almost all of the time


class HealthError(Exception):
    """No answer to the question; one line that says why.

    Args:
        message: one line.
        is_refusal: a server answered, and does not let this call through.
    """

    def __init__(self, message: str, *, is_refusal: bool = False) -> None:
        super().__init__(message)
        self.is_refusal = is_refusal


class TlsFilesError(Exception):
    """A file of `TlsFiles` cannot be used: no server was asked; one line."""


class UnclearError(Exception):
    """The quick way ends without an answer, for a reason that only gRPC can put into words."""


class TlsFiles(NamedTuple):
    """Paths of PEM files, and the name to look for in the server's certificate.

    Attributes:
        ca: authorities; None for those of gRPC.
        cert: own certificate, with `key`, where the server asks for one.
        key: its private key.
        server_name: in the certificate, if it is not the address's.
    """

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    server_name: str | None = None


def check_health(
    address: str, model: str, timeout_s: float, tls: TlsFiles | None = None, headers: tuple[tuple[str, str], ...] = ()
) -> str:
    """Return the status of a model, or of the server for an empty name, as grpc.health.v1 calls it.

    The two messages are a string and a number; protobuf would take longer to load than the call takes.

    Args:
        address: host:port, unix:PATH or unix-abstract:NAME.
        model: any text of UTF-8; empty for the server.
        timeout_s: for everything.
        tls: None for plain text.
        headers: metadata of the call.

    Raises:
        HealthError: no server answered, or not as grpc.health.v1, or the call is restricted.
        TlsFilesError: a file of `tls` cannot be used.
    """
    from forebay_server.service.cli.remote.header_block import varint
    from forebay_server.service.cli.remote.probe import probe

    name = model.encode()
    request = _SERVICE_FIELD + varint(len(name)) + name if name else b""
    clock = MonotonicClock()
    until_ns = clock.now_ns() + int(timeout_s * 1e9)
    try:
        answer = probe(address, CHECK, request, until_ns, tls, headers)
    except UnclearError:
        from forebay_server.service.cli.remote.grpc_health import ask

        remaining_s = max((until_ns - clock.now_ns()) / 1e9, _LEAST_S)
        answer = ask(address, CHECK, request, remaining_s, tls, headers)
    return "SERVICE_UNKNOWN" if answer is None else _status(answer)


def _status(response: bytes) -> str:
    if not response:
        return _NAMES[0]
    if response[0] != _STATUS_FIELD or len(response) != 2 or response[1] >= len(_NAMES):
        raise HealthError("the answer is none of grpc.health.v1")
    return _NAMES[response[1]]

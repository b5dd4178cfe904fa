"""Asks a server's health with gRPC, which knows every address, certificate and status. `health` has the quick way."""

import grpc

from forebay.client.options import Tls
from forebay.client.tls_files import credentials_of
from forebay.connect_words import connect_words
from forebay_server.service.cli.remote.health import HealthError, TlsFiles, TlsFilesError
from forebay_server.service.restricted import REFUSAL, how_to_mend


def ask(
    address: str,
    method: str,
    request: bytes,
    timeout_s: float,
    tls: TlsFiles | None,
    headers: tuple[tuple[str, str], ...],
) -> bytes | None:
    """Return the response of a unary call; None if the server knows no such name.

    Raises:
        HealthError: no server answered, or the call is restricted.
        TlsFilesError: a file of `tls` cannot be used.
    """
    with _channel(address, tls) as channel:
        try:
            response: bytes = channel.unary_unary(method, None, None)(request, timeout=timeout_s, metadata=headers)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return None
            if (error.details() or "").startswith(REFUSAL):
                raise HealthError(f"{error.details()}: {how_to_mend('health')}", is_refusal=True) from None
            raise HealthError(f"{error.code().name}: {connect_words(error.details() or '')}") from None
    return response


def _channel(address: str, tls: TlsFiles | None) -> grpc.Channel:
    options: list[tuple[str, int | str]] = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    if tls is None:
        return grpc.insecure_channel(address, options)
    if tls.server_name is not None:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    try:
        credentials = credentials_of(Tls(ca=tls.ca, cert=tls.cert, key=tls.key))
    except OSError as error:
        raise TlsFilesError(f"cannot read {error.filename}: {error.strerror}") from None
    except ValueError as error:
        raise TlsFilesError(str(error)) from None
    return grpc.secure_channel(address, credentials, options)

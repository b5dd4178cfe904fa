"""The files of a client's TLS: read and checked before gRPC has them, which says of a bad one only that it fails."""

import logging
import ssl
from collections.abc import Iterable
from pathlib import Path

import grpc

from forebay.certificate_dates import date_fault
from forebay.client.options import Tls
from forebay.pem import authorities_fault, loaded_pair, pair_fault

_log = logging.getLogger("forebay")


def credentials_of(tls: Tls) -> grpc.ChannelCredentials:
    """Return the credentials of the files as they are now. A certificate that has expired is a warning in the log.

    Raises:
        OSError, ValueError: as `read_files`.
    """
    ca, cert, key = read_files(tls)
    if tls.cert is not None and tls.key is not None:
        _warn_of_dates(tls.cert, tls.key)
    return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=cert)


def read_files(tls: Tls) -> tuple[bytes | None, bytes | None, bytes | None]:
    """Return the contents of the authorities, the certificate and the key, checked; None for those that are not given.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file is no PEM file or of another kind, or certificate and key are swapped or no pair.
    """
    ca, cert, key = (None if name is None else Path(name).read_bytes() for name in (tls.ca, tls.cert, tls.key))
    if tls.ca is not None and ca is not None and (problem := authorities_fault(tls.ca, ca)):
        raise ValueError(problem)
    if tls.cert is not None and tls.key is not None and cert is not None and key is not None:
        if problem := pair_fault(tls.cert, cert, tls.key, key):
            raise ValueError(problem)
        loaded_pair(tls.cert, tls.key)
    return ca, cert, key


def modified_ns(tls: Tls | None) -> tuple[int, ...]:
    """Return when each file was changed. Raises OSError."""
    return tuple(Path(name).stat().st_mtime_ns for name in _names(tls))


def _names(tls: Tls | None) -> Iterable[Path | str]:
    return [] if tls is None else [name for name in (tls.ca, tls.cert, tls.key) if name is not None]


def _warn_of_dates(cert: Path | str, key: Path | str) -> None:
    try:
        problem = date_fault(loaded_pair(cert, key), cert)
    except ssl.SSLError as error:
        problem = f"it may not work: {error.reason}"
    if problem:
        _log.warning("the client's certificate %s: %s; a server that asks for one refuses it", cert, problem)

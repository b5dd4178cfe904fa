"""TLS for the listener: certificates that are checked when they are read, and read again when their files change.

A pair is tried by a handshake with itself in memory. This finds the faults that a client would find: files that cannot
be read, a key of another certificate, a certificate that has expired. At start a fault is an error of one line; later
the working pair is kept and the log has the reason.

Not here: the clients' names. With `tls_client_ca` every client must present a certificate of one of these authorities.

Thread: `ServerCertificates.fetch` runs on gRPC's thread, at every handshake; everything else on the event loop's.
"""

import os
import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc
import structlog

from forebay.certificate_dates import date_fault
from forebay.pem import authorities_fault, loaded_pair, pair_fault
from forebay_server.service.settings import ServeSettings

log = structlog.get_logger(__name__)

Signature = tuple[tuple[int, int, int], ...]


class CertificateError(Exception):
    """Certificates that cannot be used; one line: the file, the fault, the remedy."""


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Paths of the PEM files.

    Attributes:
        chain: the server's certificate and those between it and its authority.
        key: its private key, without a passphrase.
        client_ca: authorities of the clients' certificates; None accepts clients without one.
    """

    chain: Path
    key: Path
    client_ca: Path | None = None

    def signature(self) -> Signature:
        """Return a value that changes when a file does. Raises OSError."""
        paths = [path for path in (self.chain, self.key, self.client_ca) if path is not None]
        stats = [os.stat(path) for path in paths]  # noqa: PTH116 - follows links, as reading does
        return tuple((stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in stats)


def files_of(settings: ServeSettings) -> CertificateFiles | None:
    """Return the files that the settings name; None without TLS."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return CertificateFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca)


def check_certificates(settings: ServeSettings) -> None:
    """Raise CertificateError if TLS is wanted and its files cannot be used: asked before models are loaded."""
    files = files_of(settings)
    if files is not None:
        ServerCertificates(files)


class ServerCertificates:
    """The certificates of one listener. Raises CertificateError if they cannot be used now."""

    def __init__(self, files: CertificateFiles) -> None:
        self._files = files
        self._signature = _signature_or_none(files)
        self._configuration = _load(files, self._signature)

    def credentials(self) -> grpc.ServerCredentials:
        """Return credentials that follow the files."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration,
            self.fetch,  # type: ignore[arg-type]  # the stubs forget that None means no change
            require_client_authentication=self._files.client_ca is not None,
        )

    def fetch(self) -> "grpc.ServerCertificateConfiguration | None":
        """Return a new configuration if the files have changed and can be used, else None: keep the present one.

        The signature is taken before the files are read and kept in any case. So a file that changes while it is read
        makes the next handshake read it again, and unusable files are reported once.
        """
        signature = _signature_or_none(self._files)
        if signature == self._signature:
            return None
        self._signature = signature
        try:
            self._configuration = _load(self._files, signature)
        except CertificateError as error:
            log.warning("certificates not reloaded, the old ones stay", detail=str(error))
            return None
        log.info("certificates reloaded", file=str(self._files.chain))
        return self._configuration


def _signature_or_none(files: CertificateFiles) -> Signature:
    try:
        return files.signature()
    except OSError:
        return ()


def _load(files: CertificateFiles, signature: Signature) -> "grpc.ServerCertificateConfiguration":
    """Read and check files that had this signature just now. Raises CertificateError."""
    chain, key = _read(files.chain, "tls_cert"), _read(files.key, "tls_key")
    client_ca = None if files.client_ca is None else _read(files.client_ca, "tls_client_ca")
    if problem := pair_fault(files.chain, chain, files.key, key):
        raise CertificateError(f"tls_cert, tls_key: {problem}")
    _check_pair(files)
    if files.client_ca is not None and client_ca is not None:
        _check_authorities(files.client_ca, client_ca)
    if _signature_or_none(files) != signature:  # the files that were read may differ from the checked ones
        raise CertificateError("tls_cert, tls_key: the files changed while they were read; try again")
    return grpc.ssl_server_certificate_configuration([(key, chain)], client_ca)


def _read(path: Path, setting: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateError(
            f"{setting}: cannot read {path}: {error.strerror}; check the path and its mode"
        ) from None


def _check_pair(files: CertificateFiles) -> None:
    try:
        problem = date_fault(loaded_pair(files.chain, files.key), files.chain)
    except ValueError as error:
        raise CertificateError(f"tls_cert, tls_key: {error}") from None
    except ssl.SSLError as error:
        raise CertificateError(f"tls_cert: {files.chain} does not work: {error.reason}; make a new one") from None
    except OSError as error:  # a file has just gone
        raise CertificateError(f"tls_cert, tls_key: {error.strerror}; try again") from None
    if problem:
        raise CertificateError(f"tls_cert: {files.chain}: {problem}")


def _check_authorities(path: Path, data: bytes) -> None:
    problem = authorities_fault(path, data)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError:  # ssl.SSLError is one
        problem = problem or f"{path} holds no PEM certificate that can be read: is it whole?"
    if problem:
        raise CertificateError(f"tls_client_ca: {problem}")

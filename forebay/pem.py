"""Faults of the PEM files of TLS, in words: swapped, of another kind, with a passphrase, no pair.

gRPC takes any bytes and fails at the first connection without a reason. The labels of the blocks say most of it before.
"""

import re
import ssl
from pathlib import Path

_LABEL = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")
_CERTIFICATES = frozenset({b"CERTIFICATE", b"X509 CERTIFICATE", b"TRUSTED CERTIFICATE"})
_LOCKED = b"ENCRYPTED PRIVATE KEY"  # of PKCS#8; OpenSSL's older form has a line instead
_LOCKED_LINE = b"Proc-Type: 4,ENCRYPTED"

_REMEDY_OF_LOCKED = "give one without, readable by this user only (openssl pkey -in KEY -out NEW)"


def authorities_fault(name: Path | str, data: bytes) -> str:
    """Return the fault of a file of authorities in one line; empty for none that its labels show."""
    return _fault(name, data, "certificate of an authority") if not _has_certificate(data) else ""


def pair_fault(chain_name: Path | str, chain: bytes, key_name: Path | str, key: bytes) -> str:
    """Return the fault of a certificate chain and its key in one line; empty for none that their labels show."""
    if _has_certificate(chain) and _has_key(key):
        has_passphrase = _LOCKED in _labels(key) or _LOCKED_LINE in key
        return f"the key {key_name} has a passphrase; {_REMEDY_OF_LOCKED}" if has_passphrase else ""
    if _has_key(chain) and _has_certificate(key):
        return f"the certificate and the key are swapped: {key_name} is the certificate, {chain_name} the key"
    if not _has_certificate(chain):
        return _fault(chain_name, chain, "certificate")
    return _fault(key_name, key, "private key")


def loaded_pair(chain: Path | str, key: Path | str) -> ssl.SSLContext:
    """Return a server's context with a certificate chain and its key, read from their files.

    Raises:
        ValueError: they are no pair, or cannot be used; one line.
        OSError: a file cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(chain, key, _no_passphrase)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError(f"{key} is not the key of {chain}; give a pair that belongs together") from None
        raise ValueError(
            f"{chain} and {key} are no PEM certificate and key that can be read: are they whole?"
        ) from None
    except _PassphraseError:
        raise ValueError(f"the key {key} has a passphrase; {_REMEDY_OF_LOCKED}") from None
    return context


class _PassphraseError(Exception):
    """OpenSSL asks for a passphrase."""


def _no_passphrase() -> str:
    raise _PassphraseError  # else OpenSSL asks at the terminal


def _labels(data: bytes) -> set[bytes]:
    return set(_LABEL.findall(data))


def _has_certificate(data: bytes) -> bool:
    return not _CERTIFICATES.isdisjoint(_labels(data))


def _has_key(data: bytes) -> bool:
    return any(label.endswith(b"PRIVATE KEY") for label in _labels(data))


def _fault(name: Path | str, data: bytes, wanted: str) -> str:
    """Return a line that names the kind of a file and the kind that is wanted."""
    if not data.strip():
        return f"{name} is empty: it should hold the {wanted}, as PEM"
    if not (labels := _labels(data)):
        what = "is no PEM file, which begins with -----BEGIN"
        return f"{name} {what}: it should hold the {wanted}; convert it with openssl"
    if b"CERTIFICATE REQUEST" in labels or b"NEW CERTIFICATE REQUEST" in labels:
        found = "a request for a certificate, which an authority still has to sign"
    elif _has_key(data):
        found = "a private key"
    elif _has_certificate(data):
        found = "a certificate"
    else:
        found = f"a {min(labels).decode().lower()}"
    return f"{name} holds {found}; it should hold the {wanted}"

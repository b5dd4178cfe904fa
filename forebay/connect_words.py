"""gRPC's reasons for a failed connection in words that say what to look at. Pure; imports nothing of gRPC."""

import re

_FAILED = re.compile(r"failed to connect to all addresses; last error: \w+: (?P<place>.*?): (?P<why>.+)", re.DOTALL)
_XDS_SERVER = re.compile(
    r"xDS channel for server (?P<server>\S+): channel in TRANSIENT_FAILURE: (?P<why>.+)", re.DOTALL
)
_REASONS = (  # the first whose mark is in gRPC's text
    ("certificate has expired", "the server's certificate has expired, or the clock of this machine is wrong"),
    (
        "certificate is not yet valid",
        "the server's certificate is not yet valid, or the clock of this machine is wrong",
    ),
    ("CERTIFICATE_EXPIRED", "the certificate of this side has expired: renew it"),
    ("CERTIFICATE_VERIFY_FAILED", "the server's certificate is of an authority that this side does not trust"),
    ("Hostname Verification", "the server's certificate is for another name than this address"),
    ("CERTIFICATE_REQUIRED", "the server wants a certificate of this side, and its key"),
    ("WRONG_VERSION_NUMBER", "the server does not speak TLS there"),
    ("handshake failed", "TLS does not work there: do both sides speak it, with certificates that the other trusts?"),
    ("Failed to create security handshaker", "the certificate files cannot be used: are they PEM, and of one pair?"),
    ("Connection refused", "nothing listens there (connection refused)"),
    ("No such file or directory", "there is no such socket"),
    ("Socket closed", "the server hangs up: does it want TLS, with a CA file?"),
    ("before receiving SETTINGS", "it takes connections and says nothing: does it hang, or speak another protocol?"),
    ("Connection reset", "the server hangs up: does it want TLS, with a CA file?"),
)
_NO_NAME = re.compile(r"(?is)(DNS resolution failed for|errors resolving) .*(not found|not known)")
_HTTP_1 = re.compile(r".*Failed parsing HTTP/2.*http1\.x server.*", re.DOTALL)
_XDS = (  # the same, of an address that begins with xds:
    ("GRPC_XDS_BOOTSTRAP or", "an xds: address needs a bootstrap file, whose path is in GRPC_XDS_BOOTSTRAP"),
    ("Failed to load file", "the bootstrap file of xDS that GRPC_XDS_BOOTSTRAP names cannot be read"),
    ("bootstrap", "the bootstrap file of xDS is not as gRPC wants it"),
)
NOTHING_LISTENS = ("nothing listens there", "there is no such socket")


def connect_words(details: str) -> str:
    """Return the reason for a failed connection; any other text as it is."""
    if _NO_NAME.match(details):
        return "the host's name is not known"
    if _HTTP_1.match(details):
        return "HTTP/1 is spoken there: is it an admin port?"
    if (found := _XDS_SERVER.search(details)) is not None:
        return f"the xDS server {found['server']} cannot be reached: {_words(found['why'], _REASONS)}"
    if details.startswith("Failed to create XdsClient: "):
        return _words(details, _XDS)
    found = _FAILED.fullmatch(details)
    return details if found is None else _words(found["why"], _REASONS)


def _words(why: str, reasons: tuple[tuple[str, str], ...]) -> str:
    for mark, words in reasons:
        if mark.lower() in why.lower():
            return words
    return why


def is_nothing_there(message: str) -> bool:
    """Whether a message has the reason that no server listens, so that starting one is the remedy."""
    return any(words in message for words in NOTHING_LISTENS)

"""gRPC's texts about connections, as grpcio 1.85 gives them, in words that say what to look at."""

import pytest

from forebay.client.retry import CallEnd
from forebay.connect_words import connect_words, is_nothing_there

FAILED = "failed to connect to all addresses; last error: "
TLS = "UNKNOWN: ipv4:127.0.0.1:1: Tls handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:1: SSL routines:"


@pytest.mark.parametrize(
    ("details", "words"),
    [
        (
            "UNKNOWN: ipv4:127.0.0.1:1: Failed to connect to remote host: connect: Connection refused (111)",
            "nothing listens there (connection refused)",
        ),
        ("UNKNOWN: unix:/no/x.sock: connect: No such file or directory (2)", "there is no such socket"),
        ("UNAVAILABLE: ipv4:127.0.0.1:1: Socket closed", "the server hangs up: does it want TLS, with a CA file?"),
        (
            f"{TLS}OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: unable to get local issuer certificate: OK",
            "the server's certificate is of an authority that this side does not trust",
        ),
        (
            f"{TLS}OPENSSL_internal:WRONG_VERSION_NUMBER: Invalid certificate verification context: OK",
            "the server does not speak TLS there",
        ),
        (f"{TLS}x", "TLS does not work there: do both sides speak it, with certificates that the other trusts?"),
        (
            "UNKNOWN: ipv4:127.0.0.1:1: connection attempt timed out before receiving SETTINGS frame",
            "it takes connections and says nothing: does it hang, or speak another protocol?",
        ),
        ("UNKNOWN: ipv4:1.2.3.4:1: something new", "something new"),
    ],
)
def test_a_failed_connection_has_a_reason(details, words):
    assert connect_words(FAILED + details) == words
    assert CallEnd("UNAVAILABLE", FAILED + details).words == f"UNAVAILABLE: {words}"


@pytest.mark.parametrize(
    ("details", "words"),
    [
        (
            "errors resolving a.invalid:1: [field:hostname lookup error:address lookup failed for a.invalid:1: "
            "Domain name not found]",
            "the host's name is not known",
        ),
        (
            "DNS resolution failed for a:1: C-ares status is not ARES_SUCCESS: Domain name not found",
            "the host's name is not known",
        ),
        (
            "Failed parsing HTTP/2 (Expected SETTINGS frame as the first frame, got frame type 80) "
            "(Trying to connect an http1.x server (HTTP status 400))",
            "HTTP/1 is spoken there: is it an admin port?",
        ),
    ],
)
def test_a_wrong_place_has_a_reason(details, words):
    assert connect_words(details) == words


XDS = "Failed to create XdsClient: "
CHANNEL = "empty address list (LDS resource cameras: xDS channel for server 127.0.0.1:1: channel in TRANSIENT_FAILURE: "


@pytest.mark.parametrize(
    ("details", "words"),
    [
        (
            f"{XDS}Environment variables GRPC_XDS_BOOTSTRAP or GRPC_XDS_BOOTSTRAP_CONFIG not defined",
            "an xds: address needs a bootstrap file, whose path is in GRPC_XDS_BOOTSTRAP",
        ),
        (
            f"{XDS}Failed to load file: /nowhere due to error(fdopen): No such file or directory",
            "the bootstrap file of xDS that GRPC_XDS_BOOTSTRAP names cannot be read",
        ),
        (
            f"{XDS}Failed to parse bootstrap JSON string: INVALID_ARGUMENT: JSON parsing failed",
            "the bootstrap file of xDS is not as gRPC wants it",
        ),
        (f"{XDS}something new", f"{XDS}something new"),
        (
            f"{CHANNEL}{FAILED}UNKNOWN: ipv4:127.0.0.1:1: connect: Connection refused (node ID:x))",
            "the xDS server 127.0.0.1:1 cannot be reached: nothing listens there (connection refused)",
        ),
    ],
)
def test_an_xds_address_that_cannot_be_resolved_has_a_reason(details, words):
    assert connect_words(details) == words


def test_other_texts_stay():
    assert connect_words("no model 'm'") == "no model 'm'"
    assert connect_words("") == ""


def test_only_where_nothing_listens_a_start_helps():
    assert is_nothing_there(f"no stream: {connect_words(f'{FAILED}UNKNOWN: a:1: Connection refused (111)')}")
    assert not is_nothing_there(connect_words(f"{FAILED}UNAVAILABLE: a:1: Socket closed"))

"""PEM files that cannot be used for TLS: each fault has words, before gRPC sees the file."""

import subprocess

import pytest

from forebay.certificate_dates import date_fault
from forebay.pem import authorities_fault, loaded_pair, pair_fault
from tests.support.certificates import Authority, needs_openssl

CERTIFICATE, KEY = (b"-----BEGIN %s-----\nAAAA\n" % label for label in (b"CERTIFICATE", b"EC PRIVATE KEY"))
REQUEST, LOCKED = (
    b"-----BEGIN %s-----\nAAAA\n" % label for label in (b"CERTIFICATE REQUEST", b"ENCRYPTED PRIVATE KEY")
)
OLD_LOCKED = KEY.replace(b"AAAA", b"Proc-Type: 4,ENCRYPTED\nAAAA")


@pytest.mark.parametrize(
    ("chain", "key", "words"),
    [
        (CERTIFICATE, KEY, ""),
        (KEY + CERTIFICATE, KEY + CERTIFICATE, ""),
        (KEY, CERTIFICATE, "the certificate and the key are swapped: b.pem is the certificate, a.pem the key"),
        (LOCKED, CERTIFICATE, "the certificate and the key are swapped"),
        (KEY, KEY, "a.pem holds a private key; it should hold the certificate"),
        (CERTIFICATE, CERTIFICATE, "b.pem holds a certificate; it should hold the private key"),
        (REQUEST, KEY, "a.pem holds a request for a certificate, which an authority still has to sign"),
        (CERTIFICATE, LOCKED, "the key b.pem has a passphrase; give one without"),
        (CERTIFICATE, OLD_LOCKED, "the key b.pem has a passphrase; give one without"),
        (CERTIFICATE, KEY.replace(b"EC PRIVATE", b"PUBLIC"), "b.pem holds a public key; it should hold the private"),
        (b"\0\1", KEY, "a.pem is no PEM file"),
        (CERTIFICATE, b"\n", "b.pem is empty"),
    ],
)
def test_a_pair_that_cannot_be_one_is_named(chain, key, words):
    found = pair_fault("a.pem", chain, "b.pem", key)
    assert found.startswith(words)
    assert bool(found) == bool(words)


def test_authorities_are_certificates():
    assert not authorities_fault("ca.pem", CERTIFICATE)
    assert (
        authorities_fault("ca.pem", KEY) == "ca.pem holds a private key; it should hold the certificate of an authority"
    )


@needs_openssl
def test_files_of_two_pairs_half_files_and_locked_keys_are_named(tmp_path):
    authority = Authority(tmp_path)
    (certificate, key), (_, other) = authority.issue("one"), authority.issue("two")
    loaded_pair(certificate, key)
    with pytest.raises(ValueError, match=rf"{other} is not the key of {certificate}"):
        loaded_pair(certificate, other)
    locked = tmp_path / "locked.key"
    command = ["openssl", "ec", "-in", key, "-out", locked, "-aes128", "-passout", "pass:secret"]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(ValueError, match="has a passphrase"):
        loaded_pair(certificate, locked)
    certificate.write_bytes(certificate.read_bytes()[:100])
    with pytest.raises(ValueError, match="are they whole"):
        loaded_pair(certificate, key)


@needs_openssl
def test_a_certificate_of_the_past_is_named_with_the_remedy(tmp_path):
    authority = Authority(tmp_path)
    for days, words in ((2, ""), (-1, "certificate has expired; renew it")):
        certificate, key = authority.issue("server", days=days)
        assert date_fault(loaded_pair(certificate, key), certificate) == words

"""The client over TLS: the server's certificate is checked, the client's shown, and changed files are read again."""

import os

import grpc
import pytest

import forebay.aio
from forebay import Reconnection, Tls, UnreachableError
from tests.support.certificates import Authority, needs_openssl
from tests.support.guard import HANG_GUARD_S
from tests.support.loops import on_loop
from tests.support.scripted_server import scripted

pytestmark = needs_openssl
EVERY = {"model": "m", "encoding": "jpeg", "delivery": "every"}
# The first try is the last one, however busy the machine: the pause after it is as long as all tries may take.
ONCE = {
    "reconnection": Reconnection(
        connect_timeout_s=HANG_GUARD_S, backoff_base_s=HANG_GUARD_S, backoff_cap_s=HANG_GUARD_S
    ),
    "draw": lambda: 1.0,
}


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    made = Authority(tmp_path_factory.mktemp("tls"))
    made.issue("server")
    made.issue("client")
    return made


def server_credentials(authority, wants_client=False, name="server"):
    pair = [(authority.folder / f"{name}.{suffix}").read_bytes() for suffix in ("key", "pem")]
    roots = authority.certificate.read_bytes() if wants_client else None
    return grpc.ssl_server_credentials([tuple(pair)], roots, require_client_auth=wants_client)


def exchange(authority, tls, wants_client=False, server_name="server"):
    @on_loop
    async def run():
        credentials = server_credentials(authority, wants_client, server_name)
        async with (
            scripted(credentials=credentials) as server,
            forebay.aio.Client(server.address, tls=tls, **ONCE) as client,
        ):
            stream = client.stream("door", **EVERY)
            await stream.open()
            await stream.send(b"jpeg")
            assert (await stream.receive()).is_ok
            await stream.close()

    run()


def test_server_with_a_certificate_of_the_given_authority_is_trusted(authority):
    exchange(authority, Tls(ca=authority.certificate))


def test_server_is_not_trusted_without_its_authority(authority, tmp_path):
    stranger = Authority(tmp_path, "stranger")
    with pytest.raises(UnreachableError, match="UNAVAILABLE"):
        exchange(authority, Tls(ca=stranger.certificate))


def test_plain_text_does_not_reach_a_tls_server(authority):
    with pytest.raises(UnreachableError):
        exchange(authority, None)


def test_client_shows_its_certificate(authority):
    pair = {"cert": authority.folder / "client.pem", "key": authority.folder / "client.key"}
    exchange(authority, Tls(ca=authority.certificate, **pair), wants_client=True)


def test_client_without_a_certificate_is_turned_away(authority):
    with pytest.raises(UnreachableError):
        exchange(authority, Tls(ca=authority.certificate), wants_client=True)


def test_name_in_the_certificate_can_be_given(authority):
    exchange(authority, Tls(ca=authority.certificate, server_name="localhost"))


def test_file_that_cannot_be_read_is_an_error_of_its_own(authority):
    with pytest.raises(FileNotFoundError):
        exchange(authority, Tls(ca=authority.folder / "nowhere.pem"))


@on_loop
async def test_changed_certificate_files_are_read_for_the_next_call(authority, tmp_path):
    trusted = tmp_path / "ca.pem"
    trusted.write_bytes(authority.certificate.read_bytes())
    stranger = Authority(tmp_path, "stranger")
    async with (
        scripted(credentials=server_credentials(authority)) as server,
        forebay.aio.Client(server.address, tls=Tls(ca=trusted), **ONCE) as client,
    ):
        await client.stream("before", **EVERY).open()
        trusted.write_bytes(stranger.certificate.read_bytes())
        os.utime(trusted, ns=(0, trusted.stat().st_mtime_ns + 1_000_000))
        with pytest.raises(UnreachableError):
            await client.stream("after", **EVERY).open()


@on_loop
async def test_files_that_are_half_written_leave_the_connection_as_it_is(authority, tmp_path):
    trusted = tmp_path / "ca.pem"
    trusted.write_bytes(authority.certificate.read_bytes())
    async with (
        scripted(credentials=server_credentials(authority)) as server,
        forebay.aio.Client(server.address, tls=Tls(ca=trusted), **ONCE) as client,
    ):
        await client.stream("before", **EVERY).open()
        trusted.write_bytes(b"")
        os.utime(trusted, ns=(0, trusted.stat().st_mtime_ns + 1_000_000))
        await client.stream("meanwhile", **EVERY).open()
        trusted.write_bytes(authority.certificate.read_bytes())
        os.utime(trusted, ns=(0, trusted.stat().st_mtime_ns + 2_000_000))
        await client.stream("after", **EVERY).open()


def test_swapped_files_and_files_of_two_pairs_are_refused_before_anything_is_sent(authority):
    certificate, key = (authority.folder / name for name in ("client.pem", "client.key"))
    for wrong, words in (
        ({"cert": key, "key": certificate}, "the certificate and the key are swapped"),
        ({"cert": certificate, "key": authority.folder / "server.key"}, "server.key is not the key of"),
        ({"ca": key}, "holds a private key; it should hold the certificate of an authority"),
    ):
        with pytest.raises(ValueError, match=words):
            exchange(authority, Tls(**{"ca": authority.certificate, **wrong}), wants_client=True)


def test_a_certificate_that_has_expired_is_a_warning_where_no_server_asks_for_it(authority, caplog):
    certificate, key = authority.issue("old", days=-1)
    exchange(authority, Tls(ca=authority.certificate, cert=certificate, key=key))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"the client's certificate {certificate}: certificate has expired; renew it" in caplog.text


def test_a_server_whose_certificate_has_expired_is_not_called_a_stranger(authority):
    authority.issue("past", days=-1)
    with pytest.raises(UnreachableError, match="the server's certificate has expired"):
        exchange(authority, Tls(ca=authority.certificate), server_name="past")

"""The listener over TLS: a fault of a certificate is one line at start, and changed files are read again."""

import asyncio
import os
from pathlib import PosixPath

import grpc
import pytest

from forebay.wire import frames_pb2 as pb
from forebay_server.service.frontend import server as server_module
from forebay_server.service.frontend.tls import CertificateError, CertificateFiles, ServerCertificates
from tests.support.certificates import Authority, needs_openssl
from tests.support.loops import on_loop
from tests.support.real_server import RawStream, real_server, simulated

pytestmark = needs_openssl
NO_CHECK_OF_NAME = [("grpc.use_local_subchannel_pool", 1)]


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    made = Authority(tmp_path_factory.mktemp("tls"))
    for name in ("server", "client", "other"):
        made.issue(name)
    return made


@pytest.fixture
def files(authority, tmp_path):
    """A copy that a test may change: certificate, key."""
    copies = tmp_path / "tls"
    copies.mkdir()
    return place(authority, "server", copies)


def place(authority, name, folder):
    """Put a pair where the server looks, as a renewal does: whole, under the old names."""
    paths = []
    for suffix in ("pem", "key"):
        path = folder / f"server.{suffix}"
        fresh = folder / "fresh"
        fresh.write_bytes((authority.folder / f"{name}.{suffix}").read_bytes())
        fresh.replace(path)
        paths.append(path)
    return tuple(paths)


def channel_to(address, authority, client=None):
    pair = (None, None)
    if client is not None:
        pair = [(authority.folder / f"{client}.{suffix}").read_bytes() for suffix in ("key", "pem")]
    credentials = grpc.ssl_channel_credentials(authority.certificate.read_bytes(), *pair)
    return grpc.aio.secure_channel(address, credentials, options=NO_CHECK_OF_NAME)


async def answer(channel):
    """Send one frame on a new stream; return the seq of its result."""
    stream = RawStream(channel)
    await stream.send_open()
    await stream.send(1)
    await stream.half_close()
    return [result.seq for result in await stream.results()]


async def common_name(address):
    """The name in the certificate that the server shows now."""
    import ssl

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    host, _, port = address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return next(name for name in (b"server", b"other") if name in der.replace(b"authority", b""))


@on_loop
async def test_frames_are_answered_over_tls(tmp_path, authority, files):
    async with (
        real_server(simulated(tmp_path / "models"), tls_cert=files[0], tls_key=files[1]) as running,
        channel_to(running.address, authority) as channel,
    ):
        assert await answer(channel) == [1]


@on_loop
async def test_without_tls_a_client_gets_nothing_from_a_tls_port(tmp_path, files):
    async with real_server(simulated(tmp_path / "models"), tls_cert=files[0], tls_key=files[1]) as running:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await answer(running.channel)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


@on_loop
async def test_mutual_tls_takes_clients_of_the_authority_only(tmp_path, authority, files):
    ca = authority.certificate
    async with real_server(
        simulated(tmp_path / "models"), tls_cert=files[0], tls_key=files[1], tls_client_ca=ca
    ) as running:
        async with channel_to(running.address, authority, client="client") as channel:
            assert await answer(channel) == [1]
        async with channel_to(running.address, authority) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await answer(channel)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


@on_loop
async def test_renewed_files_are_shown_to_new_connections_and_open_streams_live_on(tmp_path, authority, files):
    async with (
        real_server(simulated(tmp_path / "models"), tls_cert=files[0], tls_key=files[1]) as running,
        channel_to(running.address, authority) as channel,
    ):
        old = RawStream(channel)
        await old.send_open()
        assert await common_name(running.address) == b"server"
        place(authority, "other", files[0].parent)
        assert await common_name(running.address) == b"other"
        await old.send(1)
        assert (await old.results(1))[0].status.code == pb.STATUS_OK
        await old.half_close()
        await old.drain()


@pytest.mark.parametrize("damage", ["empty", "half", "missing"])
@on_loop
async def test_files_that_cannot_be_used_leave_the_old_certificate(tmp_path, authority, files, damage):
    certificate, key = files
    async with real_server(simulated(tmp_path / "models"), tls_cert=certificate, tls_key=key) as running:
        if damage == "missing":
            key.unlink()
        elif damage == "empty":
            certificate.write_bytes(b"")
        else:  # the certificate is new, its key is not there yet
            certificate.write_bytes((authority.folder / "other.pem").read_bytes())
        assert await common_name(running.address) == b"server"
        place(authority, "other", certificate.parent)
        assert await common_name(running.address) == b"other"


@on_loop
async def test_a_silent_connection_is_closed_before_it_has_shown_anything(tmp_path, files, monkeypatch):
    monkeypatch.setattr(server_module, "HANDSHAKE_TIMEOUT_S", 0.2)
    settings = {"tls_cert": files[0], "tls_key": files[1]}
    async with real_server(simulated(tmp_path / "models"), **settings) as running:
        reader, writer = await asyncio.open_connection(*running.address.rsplit(":", 1))
        await reader.read()  # to its end
        writer.close()


class ChangedWhenRead(PosixPath):
    """A file after whose next reading, successful or not, something happens."""

    def then(self, act):
        self.act = act
        return self

    def read_bytes(self):
        act, self.act = self.act, lambda: None
        try:
            return super().read_bytes()
        finally:
            act()


@pytest.mark.parametrize("is_key_there", [False, True])
def test_a_renewal_that_ends_while_the_files_are_read_is_seen_by_the_next_handshake(authority, files, is_key_there):
    """The key comes first and the certificate a moment later; in between the two do not fit, or one is missing."""
    certificate, key = files
    watched = ChangedWhenRead(key).then(lambda: None)
    certificates = ServerCertificates(CertificateFiles(certificate, watched))
    if is_key_there:
        key.write_bytes((authority.folder / "other.key").read_bytes())
    else:
        key.unlink()
    watched.then(lambda: place(authority, "other", key.parent))
    assert certificates.fetch() is None
    assert certificates.fetch() is not None
    assert certificates.fetch() is None


def refusal(chain, key, client_ca=None):
    with pytest.raises(CertificateError) as refused:
        ServerCertificates(CertificateFiles(chain, key, client_ca))
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_key_of_another_certificate_is_refused(authority):
    assert "is not the key of" in refusal(authority.folder / "server.pem", authority.folder / "client.key")


def test_swapped_files_are_called_swapped(authority):
    certificate, key = (authority.folder / f"server.{suffix}" for suffix in ("pem", "key"))
    assert refusal(key, certificate).startswith("tls_cert, tls_key: the certificate and the key are swapped")
    assert "holds a private key" in refusal(certificate, key, key)


def test_an_expired_certificate_is_refused(authority, tmp_path):
    certificate, key = authority.issue("old", days=-1)
    assert "expired" in refusal(certificate, key)


def test_files_that_are_no_certificates_are_refused(authority, tmp_path):
    certificate, key = authority.folder / "server.pem", authority.folder / "server.key"
    rubbish, missing = tmp_path / "rubbish.pem", tmp_path / "missing.pem"
    rubbish.write_text("rubbish")
    assert "no PEM" in refusal(rubbish, key)
    assert "no PEM" in refusal(certificate, rubbish)
    assert "no PEM" in refusal(certificate, key, rubbish)
    for paths in [(missing, key), (certificate, missing), (certificate, key, missing)]:
        assert "cannot read" in refusal(*paths)


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked(authority, tmp_path):
    import subprocess

    locked = tmp_path / "locked.key"
    key = authority.folder / "server.key"
    command = ["openssl", "ec", "-in", str(key), "-out", str(locked), "-aes128", "-passout", "pass:secret"]
    subprocess.run(command, check=True, capture_output=True)
    assert "passphrase" in refusal(authority.folder / "server.pem", locked)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_key_that_may_not_be_read_is_refused(files):
    files[1].chmod(0)
    assert "Permission denied" in refusal(*files)

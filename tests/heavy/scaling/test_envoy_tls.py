"""The deployed configuration of Envoy as it is, with its name and its certificates: TLS to clients and to servers."""

import subprocess
from contextlib import contextmanager

import pytest

import forebay
from forebay_server.bench.fleet import free_ports, reachable
from tests.heavy.scaling.test_faults import ENVOY
from tests.heavy.tritonclient.conftest import serving, simulated
from tests.support.certificates import Authority, needs_openssl
from tests.support.repository import ROOT

ROW = b"\0" * 64

pytestmark = [needs_openssl, pytest.mark.skipif(not ENVOY.exists(), reason="Envoy's wheel is for Linux on x86-64")]


@contextmanager
def envoy_before(server, folder):
    """Run Envoy before a server on 127.0.0.1; yields its address."""
    listen, admin = free_ports(2)
    text = (ROOT / "deploy" / "envoy" / "envoy.yaml").read_text().replace("/etc/envoy/tls", str(folder))
    text = text.replace("address: 0.0.0.0, port_value: 8001", f"address: 127.0.0.1, port_value: {listen}")
    text = text.replace("port_value: 9901", f"port_value: {admin}")
    text = text.replace("address: servers, port_value: 8001", f"address: localhost, port_value: {server.split(':')[1]}")
    text = text.replace("exact: servers", "exact: localhost")
    (folder / "envoy.yaml").write_text(text)
    command = [ENVOY, "-c", folder / "envoy.yaml", "--disable-hot-restart", "--log-level", "error"]
    with subprocess.Popen(command) as process:
        try:
            assert reachable(f"127.0.0.1:{listen}", 20)
            yield f"127.0.0.1:{listen}"
        finally:
            process.kill()


def test_streams_go_through_envoy_with_tls_on_both_sides(tmp_path):
    authority = Authority(tmp_path, "ca")
    certificate, key = authority.issue("server")
    authority.issue("client")
    simulated(tmp_path / "models", "fast")
    tls = {"tls_cert": certificate, "tls_key": key, "tls_client_ca": authority.certificate}
    with serving(tmp_path / "models", **tls) as server, envoy_before(server, tmp_path) as address:
        limits = forebay.Reconnection(connect_timeout_s=30)  # Envoy's first health check
        tls = forebay.Tls(ca=authority.certificate)
        with (
            forebay.Client(address, tls=tls, reconnection=limits) as client,
            client.stream("door", model="fast", encoding="tensor", delivery="every") as stream,
        ):
            for _ in range(5):
                stream.send(ROW)
                assert stream.receive().is_ok

"""`forebay health`: the container's health check, against a real server."""

import asyncio
import json

import pytest
from typer.testing import CliRunner

from forebay_server.service.cli.commands import app
from forebay_server.service.cli.health_check import address_of
from tests.support.certificates import Authority, needs_openssl
from tests.support.loops import on_loop
from tests.support.real_server import real_server, simulated


async def health(*arguments):
    """Exit code and report."""
    command = ["health", "--json", *map(str, arguments)]
    result = await asyncio.to_thread(CliRunner().invoke, app, command)
    return result.exit_code, json.loads(result.stdout)


@on_loop
async def test_a_server_and_its_models_are_asked(tmp_path):
    async with real_server(simulated(tmp_path)) as running:
        for name, code, status in [("", 0, "SERVING"), ("sim", 0, "SERVING"), ("nose", 1, "SERVICE_UNKNOWN")]:
            assert await health("--address", running.address, "--model", name) == (
                code,
                {"address": running.address, "model": name, "status": status, "error": None},
            )
        running.server.front_end.health.drain()
        code, report = await health("--address", running.address)
        assert (code, report["status"]) == (1, "NOT_SERVING")


@on_loop
async def test_nobody_there_is_69():
    code, report = await health("--address", "127.0.0.1:9", "--timeout-s", "1")
    assert code == 69
    assert report["status"] is None
    assert report["error"]


@needs_openssl
@on_loop
async def test_a_tls_server_is_asked_with_its_own_certificate_as_authority(tmp_path):
    (tmp_path / "tls").mkdir()
    certificate, key = Authority(tmp_path / "tls").issue("server")
    async with real_server(simulated(tmp_path / "models"), tls_cert=certificate, tls_key=key) as running:
        assert (await health("--address", running.address, "--tls-ca", certificate))[0] == 0
        assert (await health("--address", running.address))[0] == 69


@pytest.mark.parametrize(
    ("environment", "address"),
    [
        ({}, "127.0.0.1:8001"),
        ({"FOREBAY_ADDRESS": "0.0.0.0:9000"}, "127.0.0.1:9000"),
        ({"FOREBAY_ADDRESS": "[::]:9000"}, "[::1]:9000"),
        ({"FOREBAY_ADDRESS": "10.0.0.1:9000"}, "10.0.0.1:9000"),
        ({"FOREBAY_ADDRESS": "10.0.0.1:9000", "FOREBAY_UDS": "/run/forebay/s"}, "unix:/run/forebay/s"),
    ],
)
def test_the_address_follows_the_settings(environment, address):
    assert address_of(environment) == address


@pytest.mark.parametrize("flag", ["--tls-cert", "--tls-key"])
def test_half_a_certificate_is_a_mistake_and_not_left_out(tmp_path, flag):
    result = CliRunner().invoke(app, ["health", "--address", "127.0.0.1:1", flag, str(tmp_path / "file.pem")])
    assert result.exit_code == 2
    assert "belong together" in result.stderr


@pytest.mark.parametrize("command", [["health"], ["models", "list"]])
def test_every_command_reaches_a_server_that_listens_everywhere_on_this_machine(command):
    environment = {"FOREBAY_ADDRESS": "0.0.0.0:9", "FOREBAY_UDS": ""}
    result = CliRunner().invoke(app, [*command, "--timeout-s", "0.5"], env=environment)
    assert result.exit_code == 69
    assert "127.0.0.1:9 does not answer" in result.stderr

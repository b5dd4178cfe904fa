"""`forebay health`: the container's health check, against a real server."""

import asyncio
import json

import grpc
import pytest
from typer.testing import CliRunner

from forebay_server.service.cli.commands import app
from forebay_server.service.cli.health_check import address_of
from tests.support.certificates import Authority, needs_openssl
from tests.support.imports import run_command
from tests.support.loops import on_loop
from tests.support.real_server import real_server, simulated
from tests.support.serve_process import serve


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


@on_loop
async def test_of_several_servers_each_is_asked_and_one_that_serves_will_do(tmp_path):
    async with real_server(simulated(tmp_path)) as running:
        code, report = await health("--address", f"127.0.0.1:9,{running.address},127.0.0.1:9", "--timeout-s", "4")
        assert (code, report["status"], report["error"]) == (0, "SERVING", None)
        assert [(each["address"], each["status"]) for each in report["servers"]] == [
            ("127.0.0.1:9", None),
            (running.address, "SERVING"),
        ]
        running.server.front_end.health.drain()
        code, report = await health("--address", f"127.0.0.1:9,{running.address}", "--timeout-s", "4")
        assert (code, report["status"]) == (1, "NOT_SERVING")


@on_loop
async def test_a_wrong_entry_of_several_addresses_is_named():
    ended = await asyncio.to_thread(run_command, "health", "--address", "127.0.0.1:9,b")
    assert ended.code == 2
    assert ended.errors == "forebay: 'b' is no address; give host:port, such as b:8001, or unix:PATH\n"


@needs_openssl
@on_loop
async def test_a_tls_server_is_asked_with_its_own_certificate_as_authority(tmp_path):
    (tmp_path / "tls").mkdir()
    certificate, key = Authority(tmp_path / "tls").issue("server")
    async with real_server(simulated(tmp_path / "models"), tls_cert=certificate, tls_key=key) as running:
        assert (await health("--address", running.address, "--tls-ca", certificate))[0] == 0
        assert (await health("--address", running.address))[0] == 69


async def quick(*words, environment=None):
    """Exit code and output of the command in a process of its own, which must not have imported gRPC."""
    ended = await asyncio.to_thread(run_command, "health", *words, environment=environment)
    assert not {"grpc", "typer"} & ended.imported, ended.errors
    assert "forebay_server.service.cli.remote.probe" in ended.imported
    return ended.code, ended.output


@on_loop
async def test_a_plain_port_and_a_unix_socket_are_asked_without_grpc(tmp_path):
    long = "m" * 128  # the longest of a model
    repository = simulated(simulated(tmp_path / "models"), long)
    uds = tmp_path / "forebay.sock"
    async with serve("--model-repository", repository, "--uds", uds) as server:
        address = await server.wait_ready()
        port = address.rpartition(":")[2]
        for where in (address, f"localhost:{port}", f"unix:{uds}"):
            assert await quick("--address", where) == (0, "SERVING\n")
        for name, answer in [
            ("sim", (0, "SERVING\n")),
            (long, (0, "SERVING\n")),
            ("m" * 127, (1, "SERVICE_UNKNOWN\n")),
        ]:
            assert await quick("--address", address, "--model", name) == answer
        assert await quick(environment={"FOREBAY_ADDRESS": f"[::]:{port}"}) == (0, "SERVING\n")
        assert await quick(environment={"FOREBAY_UDS": str(uds)}) == (0, "SERVING\n")
        ended = await asyncio.to_thread(run_command, "health", "--address", address, "--model", "m" * 20_000)
        assert (ended.code, ended.output) == (1, "SERVICE_UNKNOWN\n")  # longer than a frame: by gRPC
        assert "grpc" in ended.imported


@needs_openssl
@on_loop
async def test_tls_with_and_without_a_certificate_of_the_client_is_asked_without_grpc(tmp_path):
    (tmp_path / "tls").mkdir()
    authority = Authority(tmp_path / "tls")
    (certificate, key), (own, own_key) = authority.issue("server"), authority.issue("client")
    repository = simulated(tmp_path / "models")
    tls = ("--model-repository", repository, "--tls-cert", certificate, "--tls-key", key)
    async with serve(*tls) as server:
        address = await server.wait_ready()
        for ca in (authority.certificate, certificate):
            assert await quick("--address", address, "--tls-ca", ca) == (0, "SERVING\n")
        assert await quick("--address", address, "--tls-ca", certificate, "--tls-name", "localhost") == (0, "SERVING\n")
    client = ("--tls-ca", authority.certificate, "--tls-cert", own, "--tls-key", own_key)
    async with serve(*tls, "--tls-client-ca", authority.certificate) as server:
        address = await server.wait_ready()
        assert await quick("--address", address, *client) == (0, "SERVING\n")
        ended = await asyncio.to_thread(run_command, "health", "--address", address, *client[:2])
        assert ended.code == 69  # the words come from gRPC


@on_loop
async def test_a_server_of_grpc_without_health_is_one_line(tmp_path):
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        ended = await asyncio.to_thread(run_command, "health", "--address", f"127.0.0.1:{port}")
    finally:
        await server.stop(None)
    assert ended.code == 69
    assert ended.errors.strip() == (
        f"forebay: 127.0.0.1:{port} does not answer: UNIMPLEMENTED: the server has no grpc.health.v1"
    )
    assert "grpc" not in ended.imported


@pytest.mark.parametrize(
    ("environment", "address"),
    [
        ({}, "127.0.0.1:8001"),
        ({"FOREBAY_ADDRESS": "0.0.0.0:9000"}, "127.0.0.1:9000"),
        ({"FOREBAY_ADDRESS": "[::]:9000"}, "localhost:9000"),
        ({"FOREBAY_ADDRESS": "[::1]:9000"}, "[::1]:9000"),
        ({"FOREBAY_ADDRESS": "10.0.0.1:9000"}, "10.0.0.1:9000"),
        ({"FOREBAY_ADDRESS": "10.0.0.1:9000", "FOREBAY_UDS": "/run/forebay/s"}, "unix:/run/forebay/s"),
    ],
)
def test_the_address_follows_the_settings(environment, address):
    assert address_of(environment) == address


@pytest.mark.parametrize("address", ["", "8001", ":8001", "localhost:", "localhost:http"])
@pytest.mark.parametrize("command", [["health"], ["models", "list"]])
def test_an_address_of_the_settings_that_is_none_is_a_mistake(command, address):
    environment = {"FOREBAY_ADDRESS": address, "FOREBAY_UDS": ""}
    result = CliRunner().invoke(app, command, env=environment)
    assert result.exit_code == 2
    assert result.stderr == (
        f"forebay: FOREBAY_ADDRESS is {address!r}; give host:port, such as 127.0.0.1:8001, or unset it\n"
    )


def test_an_empty_address_and_a_name_that_is_no_text_are_mistakes():
    for words, problem in [
        (["--address", ""], "--address is empty; give host:port or unix:PATH"),
        (["--model", "\udcff"], "--model is not UTF-8: '\\udcff'"),
    ]:
        result = CliRunner().invoke(app, ["health", *words])
        assert (result.exit_code, result.stderr) == (2, f"forebay: {problem}\n")


@pytest.mark.parametrize("flag", ["--tls-cert", "--tls-key"])
def test_half_a_certificate_is_a_mistake_and_not_left_out(tmp_path, flag):
    result = CliRunner().invoke(app, ["health", "--address", "127.0.0.1:1", flag, str(tmp_path / "file.pem")])
    assert result.exit_code == 2
    assert "belong together" in result.stderr


@pytest.mark.parametrize(("content", "words"), [(None, "cannot read"), ("-----BEGIN %s-----", "holds a private key")])
def test_a_wrong_file_for_tls_is_no_silence_of_the_server(tmp_path, content, words):
    file = tmp_path / "file.pem"
    if content is not None:
        file.write_text(content % "PRIVATE KEY")
    result = CliRunner().invoke(app, ["health", "--address", "127.0.0.1:1", "--tls-ca", str(file)])
    assert result.exit_code == 2
    assert words in result.stderr
    assert "does not answer" not in result.stderr


@pytest.mark.parametrize("command", [["health"], ["models", "list"]])
def test_every_command_reaches_a_server_that_listens_everywhere_on_this_machine(command):
    environment = {"FOREBAY_ADDRESS": "0.0.0.0:9", "FOREBAY_UDS": ""}
    result = CliRunner().invoke(app, [*command, "--timeout-s", "0.5"], env=environment)
    assert result.exit_code == 69
    assert "127.0.0.1:9 does not answer" in result.stderr

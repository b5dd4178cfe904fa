"""No line of gRPC's own log reaches the terminal of a command: dead addresses, TLS on one side, a killed server."""

import asyncio
import json
import os
import re
import signal
import sys

import pytest

from forebay_server.service.cli import exit_codes
from tests.support.certificates import Authority, needs_openssl
from tests.support.guard import HANG_GUARD_S
from tests.support.loops import on_loop
from tests.support.pictures import pictures
from tests.support.repository import ROOT
from tests.support.serve_process import serve
from tests.unit.cli.test_video import write_clip

RAW = re.compile(r"^[IWEF]\d{4} |^I0000|absl::InitializeLog|\.cc:\d+", re.MULTILINE)
DEAD = "127.0.0.1:1"
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
SHORT_LOAD = ["--cameras", "1", "--fps", "5", "--duration", "200ms", "--no-calibrate"]


async def command(*words):
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "forebay_server", *map(str, words),
        cwd=ROOT, env=ENVIRONMENT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def run(*words):
    """The exit code of a command, and all that it wrote."""
    process = await command(*words)
    output, errors = await asyncio.wait_for(process.communicate(), HANG_GUARD_S)
    return process.returncode, (output + errors).decode()


def commands(clip):
    return {
        "stream": ["stream", clip, "--model", "camera"],
        "load": ["load", "--model", "camera", *SHORT_LOAD],
        "health": ["health"],
        "models": ["models", "list"],
    }


@pytest.mark.parametrize("name", ["stream", "load", "health", "models", "demo"])
@on_loop
async def test_a_dead_address_is_told_in_words_of_the_command(name, tmp_path):
    demo = ["demo", "--seconds", "0.5", "--out", tmp_path]
    words = {**commands(write_clip(tmp_path / "a.avi")), "demo": demo}[name]
    code, output = await run(*words, "--address", DEAD)
    assert code not in {exit_codes.OK, exit_codes.USAGE}, output
    assert not RAW.search(output), output
    assert DEAD in output
    assert "Traceback" not in output


@needs_openssl
@on_loop
async def test_tls_on_one_side_alone_prints_no_lines_of_grpc(tmp_path):
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server")
    stranger = Authority(tmp_path, "stranger")
    repository, clip = pictures(tmp_path), write_clip(tmp_path / "a.avi")
    tls = ["--tls-cert", certificate, "--tls-key", key]
    async with serve("--model-repository", repository, *tls, environment=ENVIRONMENT) as server:
        address = await server.wait_ready()
        for words in commands(clip).values():
            for trust in ([], ["--tls-ca", stranger.certificate]):
                code, output = await run(*words, *trust, "--address", address)
                assert code not in {exit_codes.OK, exit_codes.USAGE}, output
                assert not RAW.search(output), output
        code, output = await run("stream", clip, "--model", "camera", "--tls-ca", clip, "--address", address)
        assert code == exit_codes.USAGE
        assert "is no PEM file" in output
        assert not RAW.search(output), output
        assert await server.end() == 0
    assert all(json.loads(line)["event"] for line in server.errors.splitlines())
    async with serve("--model-repository", repository, environment=ENVIRONMENT) as server:
        address = await server.wait_ready()
        for words in commands(clip).values():
            code, output = await run(*words, "--tls-ca", authority.certificate, "--address", address)
            assert code not in {exit_codes.OK, exit_codes.USAGE}, output
            assert not RAW.search(output), output
        assert await server.end() == 0
    assert all(json.loads(line)["event"] for line in server.errors.splitlines())


@on_loop
async def test_a_killed_server_prints_no_lines_of_grpc(tmp_path):
    clip = write_clip(tmp_path / "a.avi")
    async with serve("--model-repository", pictures(tmp_path), environment=ENVIRONMENT) as server:
        address = await server.wait_ready()
        streaming = await command("stream", clip, "--loop", "--model", "camera", "--address", address)
        first = await asyncio.wait_for(streaming.stdout.readline(), HANG_GUARD_S)
        assert json.loads(first)["frame"] == 0
        server.signal(signal.SIGKILL)
        await server.wait()
        while b"unanswered" not in (line := await asyncio.wait_for(streaming.stdout.readline(), HANG_GUARD_S)) and line:
            pass
        streaming.send_signal(signal.SIGTERM)
        rest, errors = await asyncio.wait_for(streaming.communicate(), HANG_GUARD_S)
    assert streaming.returncode in {exit_codes.TERMINATED, exit_codes.FAILED}  # it may have ended before the signal
    assert not RAW.search((rest + errors).decode())

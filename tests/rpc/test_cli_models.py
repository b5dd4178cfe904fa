"""`forebay models`: what it prints, and its exit codes."""

import asyncio
import json
import sys

from typer.testing import CliRunner

from service.cli.models import models_app
from tests.support import models
from tests.support.loops import on_loop
from tests.support.real_server import eventually, real_server, simulated
from tests.support.repository import ROOT


async def run(*arguments):
    """Exit code and output, in a process of its own: the server in this one logs to the same output."""
    command = [sys.executable, "-m", "service", "models", *arguments]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=ROOT
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


@on_loop
async def test_models_of_a_server_are_listed_loaded_and_unloaded(tmp_path):
    simulated(tmp_path, "a")
    simulated(tmp_path, "b")
    async with real_server(tmp_path, model_control_mode="explicit", load_model=("a",)) as running:
        address = ("--address", running.address)
        code, output = await run("list", "--json", *address)
        assert code == 0
        assert [(m["name"], m["state"]) for m in json.loads(output)["models"]] == [("a", "READY"), ("b", "")]
        assert await run("load", "b", *address) == (0, "b is loaded\n")
        assert await run("unload", "a", *address) == (0, "a is unloaded\n")
        await eventually(lambda: not running.server.registry.unloading())
        code, output = await run("list", *address)
        assert "a      -        UNAVAILABLE  unloaded" in output
        assert "b      1        READY" in output
        code, output = await run("unload", "c", *address)
        assert code == 1
        assert "no model 'c' is loaded" in output


@on_loop
async def test_a_server_that_decides_itself_refuses_with_exit_code_1(tmp_path):
    simulated(tmp_path, "a")
    async with real_server(tmp_path) as running:
        code, output = await run("load", "a", "--address", running.address)
        assert code == 1
        assert "explicit model load / unload is not allowed" in output


def test_nobody_there_is_exit_code_69():
    result = CliRunner().invoke(models_app, ["list", "--address", "127.0.0.1:1", "--timeout-s", "1"])
    assert result.exit_code == 69
    assert "does not answer" in result.output


def test_check_tells_good_from_bad_and_names_what_is_wrong(tmp_path):
    models.save(models.add_sub(), tmp_path / "good" / "1" / "model.onnx")
    (tmp_path / "good" / "config.pbtxt").write_text("response_cache { enable: true }")
    (tmp_path / "broken" / "1").mkdir(parents=True)
    (tmp_path / "broken" / "1" / "model.onnx").write_bytes(b"no model")
    (tmp_path / "empty").mkdir()
    models.save(models.add_sub(), tmp_path / "warm" / "1" / "model.onnx")
    (tmp_path / "warm" / "config.pbtxt").write_text(
        "model_warmup { batch_size: 1 "
        'inputs { key: "INPUT0" value { data_type: TYPE_INT32 dims: 16 zero_data: true } } }'
    )
    result = CliRunner().invoke(models_app, ["check", str(tmp_path)])
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert any(line.startswith("ok       good 1: INPUT0 INT32 [16]") for line in lines)
    assert any(line.startswith("warning  good/config.pbtxt: response_cache") for line in lines)
    assert any(line.startswith("error    broken") for line in lines)
    assert any(line.startswith("error    empty") for line in lines)
    assert any(
        line.startswith("error    warm/config.pbtxt: model_warmup 1: input 'INPUT1' is missing") for line in lines
    )
    assert str(tmp_path) not in result.output


def test_check_of_a_good_repository_is_exit_code_0(tmp_path):
    models.save(models.add_sub(), tmp_path / "good" / "1" / "model.onnx")
    result = CliRunner().invoke(models_app, ["check", "--json", str(tmp_path)])
    assert result.exit_code == 0
    assert json.loads(result.output)["models"][0]["problem"] == ""

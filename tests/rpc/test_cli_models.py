"""`forebay models`: its output and its exit codes."""

import asyncio
import json
import subprocess
import sys
from importlib.util import find_spec

import pytest
from typer.testing import CliRunner

from forebay_server.service.cli.models import models_app
from tests.support import models
from tests.support.guard import HANG_GUARD_S
from tests.support.loops import on_loop
from tests.support.real_server import eventually, real_server, simulated
from tests.support.repository import ROOT
from tests.unit.engines.test_fold import picture_model


async def run(*arguments):
    """Exit code and output, in a separate process: the server in this one logs to the same output."""
    command = [sys.executable, "-m", "forebay_server.service", "models", *arguments]
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
        assert await run("load", "b", "--json", *address) == (0, '{"loaded": "b"}\n')
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
        assert "start the server with --model-control-mode explicit" in output


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
    assert any(line.startswith("warning  'empty' is passed over") for line in lines)
    assert any(
        line.startswith("error    warm/config.pbtxt: model_warmup 1: input 'INPUT1' is missing") for line in lines
    )
    assert str(tmp_path) not in result.output


def test_check_of_a_good_repository_is_exit_code_0(tmp_path):
    models.save(models.add_sub(), tmp_path / "good" / "1" / "model.onnx")
    result = CliRunner().invoke(models_app, ["check", "--json", str(tmp_path)])
    assert result.exit_code == 0
    assert json.loads(result.output)["models"][0]["problem"] == ""


def test_every_problem_of_a_configuration_and_every_fix_is_named(tmp_path):
    """Features of repositories written for other machines: a wrapper, a GPU, another backend, the batch in dims."""
    models.save(models.add_sub(), tmp_path / "m" / "1" / "model.onnx")
    (tmp_path / "m" / "config.pbtxt").write_text(
        "model_configuration {\n"
        '  backend: "onnxruntime" max_batch_size: 8\n'
        '  input { name: "INPUT0" data_type: TYPE_INT32 dims: [ -1, 16 ] }\n'
        "  instance_group { kind: KIND_GPU }\n"
        "}\n"
    )
    result = CliRunner().invoke(models_app, ["check", str(tmp_path)])
    assert result.exit_code == 1
    assert "asks for KIND_GPU" in result.output
    assert "write KIND_CPU or KIND_AUTO, name another backend, or start the server with --cpu-fallback" in result.output
    result = CliRunner().invoke(models_app, ["check", "--cpu-fallback", str(tmp_path)])
    assert result.exit_code == 1
    assert "input 'INPUT0' has dims [-1, 16], but the model has [16]" in result.output
    assert "without the batch dimension if max_batch_size is above 0" in result.output
    config = tmp_path / "m" / "config.pbtxt"
    config.write_text(config.read_text().replace("[ -1, 16 ]", "[ 16 ]"))
    result = CliRunner().invoke(models_app, ["check", "--cpu-fallback", str(tmp_path)])
    assert result.exit_code == 0
    assert "ok       m 1: INPUT0 INT32 [16]" in result.output
    config.write_text('backend: "pytorch"')
    result = CliRunner().invoke(models_app, ["check", str(tmp_path)])
    assert "m/1: no model.pt2 or model.pt; model.onnx is there: name its backend in m/config.pbtxt" in result.output
    (tmp_path / "m" / "1" / "model.onnx").rename(tmp_path / "m" / "1" / "model.pt")
    result = CliRunner().invoke(models_app, ["check", str(tmp_path)])
    assert result.exit_code == 1
    assert "model.pt" in result.output if find_spec("torch") else "pip install '.[torch]'" in result.output


def printed(*arguments):
    """Standard output of a process of its own; its log goes elsewhere."""
    command = [sys.executable, "-m", "forebay_server.service", "models", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True, timeout=HANG_GUARD_S)
    assert "model is not folded" in done.stderr
    return done.stdout


@pytest.mark.one_process(reason="no server")
def test_check_of_a_folder_without_models_says_what_it_holds(tmp_path):
    (tmp_path / "notes.txt").touch()
    result = CliRunner().invoke(models_app, ["check", str(tmp_path)])
    assert result.exit_code == 1
    assert f"error    no model in '{tmp_path}': it holds notes.txt, and no model; put NAME.onnx or" in result.stdout


def test_the_log_is_no_part_of_what_is_printed(tmp_path):
    """Standard output becomes `best.pbtxt`, or is read by a program."""
    file = models.save(picture_model(opset=6), tmp_path / "best.onnx")
    (tmp_path / "best.pbtxt").write_text('parameters { key: "scale" value { string_value: "1/255" } }')
    (tmp_path / "best.pbtxt").write_text(printed("describe", file))
    (found,) = json.loads(printed("check", "--json", file))["models"]
    assert found["problem"] == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "--jason"],
        ["list", "detector"],
        ["list", "--timeout-s", "0"],
        ["list", "--timeout-s", "soon"],
        ["load"],
        ["load", "a", "b"],
        ["unload", "--address"],
        ["check"],
        ["check", "--address", "x", "."],
        ["reload", "a"],
        [],
    ],
)
def test_a_command_line_that_cannot_be_meant_is_exit_code_2(arguments):
    result = CliRunner().invoke(models_app, arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


@pytest.mark.parametrize("arguments", [["check", "nowhere"], ["list", "--tls-ca", "nowhere"]])
def test_a_file_that_is_not_there_is_one_line(tmp_path, arguments):
    result = CliRunner().invoke(models_app, arguments)
    assert result.exit_code in (1, 2)
    assert "nowhere" in result.output
    assert "Traceback" not in result.output


def test_a_check_of_nothing_but_problems_is_one_json_object_all_the_same(tmp_path):
    (tmp_path / "empty").mkdir()
    result = CliRunner().invoke(models_app, ["check", "--json", str(tmp_path), str(tmp_path / "gone")])
    assert result.exit_code == 1
    assert "gone" in json.loads(result.output)["models"][0]["problem"]

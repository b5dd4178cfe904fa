"""Mistyped commands and options: what is near is named, what lowers security never is."""

import ast
import functools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from forebay_server.service.cli import exit_codes
from forebay_server.service.cli.commands import app
from forebay_server.service.cli.health_check import Question, report_health
from forebay_server.service.cli.unknown_words import OTHER_OPTIONS
from forebay_server.service.settings import (
    ENV_PREFIX,
    LOWERS_SECURITY,
    ServeSettings,
    SettingsError,
    load_settings,
    option_hint,
    unknown_variables,
)
from tests.support.repository import ROOT
from tests.unit.cli.test_video import write_clip

SETTINGS = sorted(ServeSettings.model_fields)
ANY_TEXT = {"address", "admin_address", "ready_file", "cache_folder", "uds", "model_repository", "load_model",
            "restricted_protocol", "tls_cert", "tls_key", "tls_client_ca"}  # fmt: skip


def run(*words):
    result = CliRunner().invoke(app, words, prog_name="forebay")
    return result.exit_code, " ".join(result.output.split())


@functools.cache
def flags():
    return set(run("serve", "--help")[1].split())


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_has_a_flag_or_its_error_names_the_variable(name):
    option = f"--{name.replace('_', '-')}"
    if option in flags():
        return
    code, output = run("serve", option, "1")
    assert code == exit_codes.USAGE
    assert f"the setting {name} has no flag: set {ENV_PREFIX}{name.upper()}, or {name} in the TOML file" in output


@pytest.mark.parametrize("name", [name for name in SETTINGS if name not in ANY_TEXT])
def test_a_wrong_value_names_the_place_that_it_comes_from(name, tmp_path, monkeypatch):
    monkeypatch.setenv(f"{ENV_PREFIX}{name.upper()}", "no value of it")
    with pytest.raises(SettingsError, match=f"^{ENV_PREFIX}{name.upper()} is 'no value of it': "):
        load_settings({}, None, {f"{ENV_PREFIX}{name.upper()}": "no value of it"})
    monkeypatch.delenv(f"{ENV_PREFIX}{name.upper()}")
    file = tmp_path / "forebay.toml"
    file.write_text(f'{name} = "no value of it"')
    with pytest.raises(SettingsError, match=f"^{name} in the file of --config is 'no value of it': "):
        load_settings({}, file, {})


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["serve", "--adress", "x"], "there is no option --adress: did you mean --address?"),
        (["serve", "--max-mesage-bytes", "1"], "the setting max_message_bytes has no flag: set FOREBAY_MAX_MESSAGE"),
        (["serve", "--zzz"], "`forebay serve --help` lists them"),
        (["serve", "--prot", "8001"], "there is no option --prot: did you mean --address HOST:PORT?"),
        (["serve", "--port=8001"], "there is no option --port: did you mean --address HOST:PORT?"),
        (["models", "list", "--url", "x"], "there is no option --url: did you mean --address HOST:PORT?"),
        (["models", "list", "--jsn"], "there is no option --jsn: did you mean --json?"),
        (["stream", "a.mp4", "--modle", "m"], "there is no option --modle: did you mean --model?"),
        (["health", "--modle", "m"], "there is no option --modle: did you mean --model?"),
        (["load", "--camreas", "2"], "there is no option --camreas: did you mean --cameras?"),
        (["load", "search", "--slo", "2"], "there is no option --slo: did you mean --slo-p99?"),
        (["engine", "build", "--fp17"], "there is no option --fp17"),
        (["demo", "--zzz"], "there is no option --zzz: `forebay demo --help` lists them"),
        (["demo", "-x"], "there is no option -x: `forebay demo --help` lists them"),
        (["-h"], "there is no option -h: did you mean --help?"),
        (["serve", "-h"], "there is no option -h: did you mean --help?"),
        (["serve", "--allow-client-shmm"], "`forebay serve --help` lists them"),
        (["--vresion"], "there is no option --vresion: did you mean --version?"),
        (["srve"], "there is no command 'srve': did you mean `forebay serve`?"),
        (["check"], "there is no command 'check': did you mean `forebay models check`?"),
        (["models", "help"], "there is no command 'help': did you mean `forebay models --help`?"),
        (["help"], "there is no command 'help': did you mean `forebay --help`?"),
        (["version"], "there is no command 'version': did you mean `forebay --version`?"),
        (["models", "chek"], "there is no command 'chek': did you mean `forebay models check`?"),
        (["load", "serch"], "there is no command 'serch': did you mean `forebay load search`?"),
        (["config", "shema"], "there is no command 'shema': did you mean `forebay config schema`?"),
        (["models", "xyzzy"], "there is no command 'xyzzy': `forebay models --help` lists them"),
        (["xyzzy"], "there is no command 'xyzzy': `forebay --help` lists them"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_mistyped_word_is_answered_with_the_likely_one(words, expected):
    result = CliRunner().invoke(app, words, prog_name="forebay")
    assert result.exit_code == exit_codes.USAGE
    assert result.output.count("\n") == 1
    assert result.output.startswith("forebay: ")
    assert expected in result.output


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["models", "load"], ["forebay: missing argument 'name'", "`forebay models load --help` says more"]),
        (["streams", "move", "--count", "x"], ["forebay: invalid value for '--count': ", "`forebay streams move"]),
        (["serve", "--address"], ["forebay: option '--address' requires an argument", "`forebay serve --help`"]),
        (["models", "list", "x"], ["forebay: got unexpected extra argument(s) (x)", "`forebay models list --help`"]),
    ],
    ids=" ".join,
)
def test_another_mistake_has_a_line_of_its_own_and_one_about_help(words, expected):
    result = CliRunner().invoke(app, words, prog_name="forebay")
    assert result.exit_code == exit_codes.USAGE
    lines = result.output.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(start) for line, start in zip(lines, expected, strict=True)), lines


@pytest.mark.parametrize("words", [[], ["models"]], ids=["forebay", "forebay models"])
def test_a_group_without_a_command_prints_its_help(words):
    result = CliRunner().invoke(app, words, prog_name="forebay")
    assert result.exit_code == exit_codes.USAGE
    assert result.output.startswith("Usage: forebay")
    assert "Commands:" in result.output


@pytest.mark.parametrize(
    "command", [["models", "list"], ["models", "load", "m"], ["demo"], ["stream", "VIDEO"], ["load"]]
)
@pytest.mark.parametrize(
    ("address", "words"),
    [("localhost", "such as localhost:8001"), ("http://localhost:8001", "give localhost:8001, without http://")],
)
def test_no_command_takes_a_server_without_a_port_or_with_a_scheme(command, address, words, tmp_path):
    clip = str(write_clip(tmp_path / "a.avi"))
    code, output = run(*[clip if word == "VIDEO" else word for word in command], "--address", address)
    assert code == exit_codes.USAGE
    assert words in output


@pytest.mark.parametrize("address", ["localhost", "http://localhost:8001", "a b:1"])
def test_health_takes_no_such_address_either(address, capfd):
    assert report_health(Question(address), {}) == exit_codes.USAGE
    assert "is no address; give" in capfd.readouterr().err


def test_models_of_several_servers_are_refused():
    code, output = run("models", "list", "--address", "a:1,b:1")
    assert code == exit_codes.USAGE
    assert "each has models of its own: give one" in output


def names_in(text):
    return {name for name in LOWERS_SECURITY if name in text.lower().replace("-", "_")}


@pytest.mark.parametrize("word", ["secure", "inscure", "insecur", "allow_client_shmm", "allow", "tls", "no_tls"])
def test_no_hint_for_an_unknown_name_proposes_less_security(word):
    asked = names_in(word)
    hints = [
        option_hint(f"--{word.replace('_', '-')}", flags(), {}),
        *unknown_variables({f"{ENV_PREFIX}{word.upper()}": ""}),
    ]
    for hint in hints:
        assert names_in(hint.partition("is no setting")[2] or hint) <= asked


@given(st.text("acdefilmnoprstuw_-", min_size=1, max_size=20))
def test_no_hint_for_any_name_proposes_less_security(word):
    option = f"--{word}"
    if names_in(word):
        return
    assert not names_in(option_hint(option, {"--insecure", "--allow-client-shm", "--address"}, OTHER_OPTIONS))


@pytest.mark.parametrize("settings", [{"address": "0.0.0.0:8001"}, {"admin_address": "0.0.0.0:8002"}])
def test_an_address_for_others_is_refused_without_proposing_less_security(settings):
    with pytest.raises(SettingsError, match="can be reached from other machines") as caught:
        load_settings(settings, None, {})
    assert not names_in(str(caught.value))


SWITCHES = {
    "service/frontend/control/repository.py",
    "service/frontend/memory/errors.py",
}  # of the asked-for call itself


def messages(path):
    """The texts of a module that are longer than a name, without docstrings."""
    source = path.read_text()
    if not names_in(source):
        return
    tree = ast.parse(source)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in docstrings and " " in node.value.strip():
            yield node.value


def test_no_message_proposes_a_setting_that_lowers_security():
    folders = [ROOT / name for name in ("service", "engines", "loadtest", "bench", "forebay")]
    paths = {path for folder in folders for path in Path(folder).rglob("*.py") if "_pb2" not in path.name}
    found = {
        (str(path.relative_to(ROOT)), text)
        for path in paths - {ROOT / "service/settings.py"}
        for text in messages(path)
        if names_in(text)
    }
    assert {name for name, _ in found} <= SWITCHES, found

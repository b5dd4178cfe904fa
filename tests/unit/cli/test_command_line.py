"""The whole command line: help in order, groups found when they are needed, completion to the last word."""

import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from forebay_server.service.cli.commands import COMMANDS, app
from tests.support.guard import HANG_GUARD_S

RUNNER = CliRunner()
GROUPS = ["load", "engine", "models", "bench", "config"]


def completions(words):
    """The completions that a shell offers after `words`; the last one may be incomplete or empty."""
    environment = {
        "_FOREBAY_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    return set(RUNNER.invoke(app, [], prog_name="forebay", env=environment).output.split())


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["lo"], {"load"}),
        (["load", ""], {"search", "compare", "agent"}),
        (["load", "--policy", ""], {"drop-oldest", "block"}),
        (["load", "search", "--slo"], {"--slo-p99"}),
        (["engine", ""], {"build", "quantize", "inspect", "verify", "profile"}),
        (["models", "l"], {"list", "load"}),
        (["bench", ""], {"batching", "identity"}),
    ],
)
def test_completion_reaches_into_every_group(words, offered):
    assert completions(["forebay", *words]) == offered


def test_help_lists_every_command_once():
    lines = RUNNER.invoke(app, ["--help"], prog_name="forebay").output.splitlines()
    names = [match[1] for line in lines if (match := re.match(r"  ([a-z]+) {2,}\S", line))]
    assert names == list(COMMANDS)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in GROUPS])
def test_the_list_says_about_a_command_how_its_own_help_begins(name):
    own = " ".join(RUNNER.invoke(app, [name, "--help"], prog_name="forebay").output.split())
    assert COMMANDS[name][2].rstrip(".") in own


@pytest.mark.parametrize("name", GROUPS)
def test_a_group_names_itself_as_it_was_called(name):
    assert (
        f"Usage: forebay {name} [OPTIONS] COMMAND" in RUNNER.invoke(app, [name, "--help"], prog_name="forebay").output
    )


def test_the_help_of_load_comes_in_sections():
    text = RUNNER.invoke(app, ["load", "--help"], prog_name="forebay").output
    heads = re.findall(r"^([A-Z][a-z ]+):$", text, re.MULTILINE)
    assert heads == [
        *("Server", "Load", "Client and delivery", "Frames", "Report", "Generator"),
        *("Options", "Commands", "Examples"),
    ]
    assert re.search(r"Options:\n  --help +Show", text)  # every other option has a section
    assert "5 no server" in text


def test_a_command_of_a_group_that_does_not_exist_is_a_usage_error():
    result = RUNNER.invoke(app, ["load", "sear"], prog_name="forebay")
    assert result.exit_code == 2
    assert "did you mean `forebay load search`?" in result.output


def test_a_load_test_without_its_extra_says_how_to_get_it():
    program = "import sys; sys.modules['hdrh'] = None; from forebay_server.service.cli import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", program, "load", "--cameras", "1"],
        check=False,
        capture_output=True,
        text=True,
        timeout=HANG_GUARD_S,
    )
    assert ended.returncode == 2
    assert ended.stderr == (
        "forebay load: load tests need hdrhistogram, the extra `load`: pip install 'hdrhistogram>=0.10.3'\n"
    )


@pytest.mark.parametrize("words", [*([command] for command in COMMANDS), ["load", "compare"], ["engine", "quantize"]])
def test_a_usage_has_each_pair_of_brackets_once(words):
    usage = RUNNER.invoke(app, [*words, "--help"]).output.partition("\n\n")[0]
    assert usage.startswith("Usage: ")
    assert not re.search(r"\[\[|\.\.\.\.|\]\]", usage)

"""Commands whose output cannot be written: one line and a code, nothing if the reader has gone, never a traceback."""

import subprocess
import sys

import pytest

from forebay_server.service.cli import exit_codes
from tests.support.broken_output import broken
from tests.support.guard import HANG_GUARD_S
from tests.support.repository import ROOT

FACES = str(next((ROOT / "models" / "faces").glob("*/model.onnx")))
COMMANDS = {
    "version": ["--version"],
    "help": ["--help"],
    "config": ["config", "show", "--origin"],
    "schema": ["config", "schema"],
    "inspect": ["engine", "inspect", FACES],
    "check": ["models", "check", str(ROOT / "models")],
    "help of a group": ["load", "--help"],
}
REASONS = {"closed": "Bad file descriptor", "full disk": "No space left on device"}
SEPARATE = (
    "import os, sys; os.close(0); "
    "from forebay_server.service.cli.standard_streams import open_standard_streams as o; o(); "
)


def run(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE):
    """Exit code and both outputs; a stream that is None is closed."""
    closed = [f"{descriptor}>&-" for descriptor, given in ((1, stdout), (2, stderr)) if given is None]
    # A shell closes them: with a preexec_fn Python would fork, and gRPC's fork handlers may crash before exec.
    shell = ["/bin/sh", "-c", f'exec "$@" {" ".join(closed)}', "sh"] if closed else []
    done = subprocess.run(
        [*shell, sys.executable, *arguments],
        check=False,
        cwd=ROOT,
        stdout=stdout,
        stderr=stderr,
        text=True,
        timeout=HANG_GUARD_S,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("kind", ["closed", "full disk"])
@pytest.mark.parametrize("command", COMMANDS)
def test_output_that_cannot_be_written_is_one_line_and_a_code(command, kind):
    with broken(kind) as descriptor:
        code, _, errors = run(["-m", "forebay_server.service", *COMMANDS[command]], stdout=descriptor)
    assert (code, errors) == (
        exit_codes.CANNOT_WRITE,
        f"forebay: cannot write to standard output: {REASONS[kind]}\n",
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_a_reader_that_has_gone_is_a_quiet_end(command):
    with broken("reader gone") as descriptor:
        code, _, errors = run(["-m", "forebay_server.service", *COMMANDS[command]], stdout=descriptor)
    assert (code, errors) == (exit_codes.NO_READER, "")


@pytest.mark.parametrize("kind", ["closed", "full disk", "reader gone"])
def test_an_error_that_cannot_be_said_keeps_its_code(kind):
    with broken(kind) as descriptor:
        assert (
            run(["-m", "forebay_server.service", "config", "show", "--config", "nowhere.toml"], stderr=descriptor)[0]
            == 2
        )
        assert run(["-m", "forebay_server.service", "no-such-command"], stderr=descriptor)[0] == 2
        code, output, _ = run(["-m", "forebay_server.service", "--version"], stderr=descriptor)
        assert code == 0
        assert output.startswith("forebay ")


def test_closed_descriptors_are_given_to_no_file():
    program = SEPARATE + "sys.exit(min(os.open(os.devnull, os.O_RDONLY) for _ in range(3)))"
    assert run(["-c", program], stdout=None, stderr=None)[0] == 3

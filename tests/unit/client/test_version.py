"""`forebay.__version__` and `python -m forebay`."""

import re
import subprocess
import sys
from importlib import metadata

import forebay
from tests.support.repository import ROOT


def run(*arguments, cwd, **environment):
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def test_the_version_is_that_of_the_distribution():
    assert re.fullmatch(r"\d+\.\d+\.\d+", forebay.__version__)
    assert metadata.version("forebay") == forebay.__version__


def test_the_package_is_the_command_line(tmp_path):
    ended = run("-m", "forebay", "--version", cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert (ended.returncode, ended.stdout) == (0, f"forebay {forebay.__version__}\n"), ended.stderr


def test_without_the_server_it_says_where_the_command_line_is(tmp_path):
    (tmp_path / "forebay").symlink_to(ROOT / "forebay")
    ended = run("-S", "-m", "forebay", cwd=tmp_path)
    assert ended.returncode == 1
    assert ended.stderr == (
        "forebay: this is the client library; the command line comes with the server: pip install forebay\n"
    )

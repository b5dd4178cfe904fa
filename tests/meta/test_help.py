"""Every program of bench/ and tools/ has a help text, and refuses unknown arguments before it does anything."""

import json
import subprocess
import sys

import pytest

from tests.support.guard import HANG_GUARD_S
from tests.support.repository import ROOT, tracked_files

FOLDERS = {"bench", "tools"}
ASK = """
import contextlib, io, json, runpy, sys
answers = {}
for module in sys.argv[1:]:
    for flag in ("--help", "--no-such-flag"):
        sys.argv = [module, flag]
        out, err = io.StringIO(), io.StringIO()
        code = "none: it ran"
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                runpy.run_module(module, run_name="__main__", alter_sys=True)
            except SystemExit as end:
                code = end.code
        answers[f"{module} {flag}"] = [code, out.getvalue(), err.getvalue()]
print(json.dumps(answers))
"""


def programs():
    """Modules of bench/ and tools/ that are run with `python -m`."""
    paths = [
        path for path in tracked_files() if path.suffix == ".py" and '\nif __name__ == "__main__":' in path.read_text()
    ]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    found = [name.removesuffix(".__main__") for name in names if name.partition(".")[0] in FOLDERS]
    return sorted(f"forebay_server.{name}" if name.startswith("bench") else name for name in found)


@pytest.fixture(scope="module")
def answers():
    command = [sys.executable, "-W", "ignore", "-c", ASK, *programs()]
    ended = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=HANG_GUARD_S)
    return json.loads(ended.stdout)


@pytest.mark.parametrize("program", programs())
def test_a_program_of_the_project_has_help_and_refuses_other_flags(answers, program):
    code, out, _ = answers[f"{program} --help"]
    assert code == 0
    assert out.startswith("usage: ")
    assert "--help" in out
    code, out, err = answers[f"{program} --no-such-flag"]
    assert (code, out) == (2, "")
    assert err.startswith("usage: ")

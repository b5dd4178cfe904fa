"""The tests that depend on protobuf, in the environment of a heavy test, which has another version of it."""

import subprocess
import sys

from tests.support.repository import ROOT


def run_wire_tests(*more):
    """Run tests/unit/wire, and more, in a separate process; return its exit code and its output."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/unit/wire", *more]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    return ended.returncode, ended.stdout + ended.stderr

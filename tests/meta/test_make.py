"""The commands of the Makefile are listed and complete."""

import re
import shutil
import subprocess

import pytest

from tests.support.repository import ROOT

ASKED_FOR = "setup demo test test-all lint type bench bench-check proto image report diagrams clean help".split()  # noqa: SIM905
MAKEFILE = (ROOT / "Makefile").read_text()


@pytest.fixture(scope="module")
def listed():
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    result = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True)
    return set(re.findall(r"^ *make (\S+) +\S", result.stdout, flags=re.MULTILINE))


def test_help_lists_every_target(listed):
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, flags=re.MULTILINE))
    assert listed == targets


def test_every_command_of_the_house_is_there(listed):
    assert set(ASKED_FOR) <= listed


def test_every_target_is_phony():
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, flags=re.MULTILINE))
    phony = set(re.findall(r"^\.PHONY: ([a-z-]+)$", MAKEFILE, flags=re.MULTILINE))
    assert targets == phony


@pytest.mark.parametrize("target", ["demo", "test", "lint", "bench"])
def test_commands_set_up_the_environment_themselves(target):
    assert re.search(rf"^{target}: \$\(READY\)", MAKEFILE, flags=re.MULTILINE)

"""The commands of the Makefile are listed and complete."""

import os
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


def make_test(tmp_path, arguments):
    """`make test` with the script `pytest` of that folder in the place of pytest."""
    (tmp_path / "pytest").chmod(0o755)
    (tmp_path / "ready").touch()
    given = [f"PYTEST={tmp_path}/pytest", f"READY={tmp_path}/ready", "LOCKS=", f"ARGS={arguments}"]
    environment = {**os.environ, "KEPT": str(tmp_path / "kept")}
    return subprocess.run(
        ["make", "test", *given], cwd=ROOT, env=environment, check=False, capture_output=True, text=True
    )


@pytest.mark.parametrize(("arguments", "code"), [("", 5), ("--lf", 0)])
def test_tests_of_which_none_failed_are_no_failure_and_none_at_all_are_one(tmp_path, arguments, code):
    """CI reruns failed tests, and all of these may be heavy."""
    (tmp_path / "pytest").write_text("#!/bin/sh\nexit 5\n")
    ended = make_test(tmp_path, arguments)
    assert (f"Error {code}" in ended.stderr, ended.returncode) == ((True, 2) if code else (False, 0))


def test_a_second_try_runs_only_targets_in_which_a_test_failed(tmp_path):
    """pytest's own --lf runs all where nothing failed, and its list is every target's."""
    script, ran = tmp_path / "pytest", tmp_path / "ran"

    def runs(arguments, code):
        script.write_text(f'#!/bin/sh\necho "ran $@" >> {ran}\nexit {code}\n')
        before = len(ran.read_text().splitlines()) if ran.exists() else 0
        make_test(tmp_path, arguments)
        return len(ran.read_text().splitlines()) - before

    assert runs("", 1) == runs("--lf", 1) == runs("--lf", 0) == 1
    assert runs("--lf", 0) == 0, "all have passed"
    assert runs("", 0) == 1
    assert runs("--lf", 0) == 0
    assert runs("", 137) == runs("--lf", 0) == 1, "it broke off, and may have no list"
    assert f"cache_dir={tmp_path}/kept/test/pytest" in ran.read_text()


@pytest.mark.parametrize("target", ["demo", "test", "lint", "bench"])
def test_commands_set_up_the_environment_themselves(target):
    assert re.search(rf"^{target}: \$\(READY\)", MAKEFILE, flags=re.MULTILINE)


def test_an_older_python_is_refused_in_words(tmp_path):
    old = tmp_path / "python3.10"
    old.write_text(
        '#!/bin/sh\n[ "$1" = -V ] && echo Python 3.10.14 && exit 0\nexit 1\n'
    )  # fails the check of its version
    old.chmod(0o755)
    command = [ROOT / "tools" / "make_venv.sh", tmp_path / "venv", "requirements.lock"]
    ended = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHON": str(old)}, check=False, capture_output=True, text=True
    )
    assert ended.returncode == 1
    assert ended.stderr == (
        f"forebay: Python 3.11 or newer is needed, and {old} is Python 3.10.14: install it, or name it: "
        "make PYTHON=/path/to/python3.12\n"
    )

"""The guards of tests/conftest.py catch their cases."""

import re
import subprocess
import sys

from tests.support.guard import HANG_GUARD_S
from tests.support.repository import ROOT

LEAKY = """
import subprocess, sys, threading

forever = threading.Event()

def test_thread_left_behind():
    threading.Thread(target=forever.wait, name="left-behind", daemon=True).start()

def test_child_left_running():
    subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])

def test_clean():
    thread = threading.Thread(target=str)
    thread.start()
    thread.join()
    subprocess.run([sys.executable, "-c", ""], check=True)

def test_thread_that_is_on_its_way_out():
    threading.Thread(target=str).start()
"""


def test_leaked_thread_and_leaked_child_fail_their_tests_and_no_others(tmp_path):
    (tmp_path / "test_leaky.py").write_text(LEAKY)
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", "-p", "no:randomly"]
    command += ["--rootdir", str(tmp_path), "-c", str(ROOT / "pyproject.toml"), "-W", "ignore::ResourceWarning"]
    command += ["-W", "ignore::pytest.PytestUnraisableExceptionWarning"]
    result = subprocess.run([*command, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
    errors = set(re.findall(r"^ERROR .*::(\w+)", result.stdout, flags=re.MULTILINE))
    assert errors == {"test_thread_left_behind", "test_child_left_running"}, result.stdout
    assert "threads left behind: left-behind" in result.stdout
    assert "4 passed, 2 errors" in result.stdout


HANGING = """
import threading

def test_that_hangs():
    threading.Event().wait()
"""


def test_a_test_that_hangs_ends_the_run_and_shows_where(tmp_path):
    (tmp_path / "test_hanging.py").write_text(HANGING)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:randomly",
        "--rootdir",
        str(tmp_path),
    ]
    command += ["-c", str(ROOT / "pyproject.toml"), "-o", "faulthandler_timeout=0.2", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=HANG_GUARD_S)
    assert result.returncode != 0
    assert "in test_that_hangs" in result.stderr

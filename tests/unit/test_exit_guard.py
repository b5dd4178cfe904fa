"""A process that cannot go on ends in time, even if threads hang. Each test has a separate process."""

import signal
import subprocess
import sys

import pytest

from tests.support.guard import HANG_GUARD_S

BEGIN = """
import ctypes, os, sys, threading
from forebay_server.service.exit_guard import ExitGuard
from forebay_server.service.log import configure_logs

def fill(file):
    os.set_blocking(file, False)
    try:
        while True:
            os.write(file, bytes(65536))
    except BlockingIOError:
        os.set_blocking(file, True)

configure_logs("json", "info")
pause = ctypes.PyDLL(None).pause  # keeps the interpreter's lock
guard = ExitGuard(70, 0.05)
"""
HANGS = {
    "every thread waits": ("guard.arm(); guard.arm(); threading.Event().wait()", 70),
    "a library keeps the interpreter's lock": ("sys.setswitchinterval(1000); guard.arm(); pause()", -signal.SIGALRM),
    "standard error takes nothing": ("fill(2); guard.arm(); threading.Event().wait()", 70),
}


@pytest.mark.parametrize("case", HANGS)
def test_a_process_that_hangs_ends(case):
    hang, code = HANGS[case]
    with subprocess.Popen([sys.executable, "-c", BEGIN + hang], stderr=subprocess.PIPE) as process:
        try:
            assert process.wait(HANG_GUARD_S) == code
        finally:
            process.kill()


def test_a_process_that_was_not_told_to_end_goes_on():
    program = BEGIN + "threading.Event().wait(0.2)"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=HANG_GUARD_S).returncode == 0

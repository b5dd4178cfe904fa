"""Child processes: they end with their parent, and no Python or library code runs between fork and exec."""

import os
import select
import signal
import subprocess
import sys

import pytest

from forebay_server.service import child
from tests.support.guard import HANG_GUARD_S

BOUND = """
import os, signal, sys
from forebay_server.service.child import bind_to_parent
bind_to_parent(int(sys.argv[1]), signal.SIGTERM)
print("bound", flush=True)
signal.pause()
"""


def run_bound(parent_pid):
    return subprocess.run(
        [sys.executable, "-c", BOUND, str(parent_pid)],
        check=False,
        stdout=subprocess.PIPE,
        timeout=HANG_GUARD_S,
    )


def test_a_child_whose_parent_has_gone_already_ends_before_it_does_anything():
    done = run_bound(parent_pid=1 if os.getpid() != 1 else 2)
    assert (done.returncode, done.stdout) == (1, b"")


def test_a_child_ends_with_a_parent_that_is_killed():
    parent = f"""
import os, subprocess, sys
bound = subprocess.Popen([sys.executable, "-c", {BOUND!r}, str(os.getpid())], stdout=subprocess.PIPE)
assert bound.stdout.readline() == b"bound\\n"
print(bound.pid, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        descriptor = os.pidfd_open(int(process.stdout.readline()))
        try:
            process.kill()
            assert select.select([descriptor], [], [], HANG_GUARD_S)[0]
        finally:
            os.close(descriptor)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="vfork is used on Linux")
def test_no_fork_handler_runs_when_a_child_is_started():
    """Handlers of a library (gRPC has some) run in every fork that is not a vfork."""
    program = f"""
import ctypes, os, sys
from forebay_server.service.child import child_of
libc = ctypes.CDLL(None)
told = ctypes.CFUNCTYPE(None)(lambda: os.write(1, b"fork handler\\n"))
assert libc.__register_atfork(told, None, None, None) == 0
process = child_of(["--version"], os.environ)()
assert process.wait({HANG_GUARD_S}) == 0
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, timeout=HANG_GUARD_S)
    assert b"fork handler" not in done.stdout
    assert done.stdout.startswith(b"forebay ")


@pytest.mark.parametrize(("code", "words"), [(-signal.SIGKILL, "was ended by SIGKILL"), (3, "ended with code 3")])
def test_how_a_child_ended_is_said_in_words(code, words):
    assert child.how_it_ended(code) == words

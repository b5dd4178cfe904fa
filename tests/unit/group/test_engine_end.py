"""The end of an engine process is known before its parent has waited for it."""

import os
import socket
import subprocess
import sys

from forebay_server.service.group.engine_end import has_hung_up, is_ending


def test_a_process_is_ending_from_its_death_on():
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE)
    try:
        assert not is_ending(child.pid)
    finally:
        child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_ending(child.pid)
    child.communicate()
    assert is_ending(child.pid)


def test_a_process_that_closes_its_end_has_hung_up():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            assert not has_hung_up(ours)
        assert has_hung_up(ours)
    assert has_hung_up(ours)

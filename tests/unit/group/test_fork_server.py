"""The fork server in processes of its own: new processes are the parent's children, and nothing breaks in a fork."""

import json
import subprocess
import sys

import pytest

from tests.support.guard import HANG_GUARD_S

# The parent: orders two processes, ends the fork server, and then waits for them.
PARENT = """
import json, os, select, signal, socket, subprocess, sys
from forebay_server.service.group.fork_server import ForkServer, adopt_orphans

assert adopt_orphans()
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
process = subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid()), str(theirs.fileno())],
                           pass_fds=[theirs.fileno()])
theirs.close()
server = ForkServer(process, ours)
rests = []
children = []
for number in range(2):
    data, their_data = socket.socketpair()
    talk, their_talk = socket.socketpair()
    with their_data, their_talk:
        children.append((server.fork(number, their_data, their_talk), data, talk))
server.close()
process.wait()
found = []
for child, data, talk in children:
    assert child.poll() is None
    said = json.loads(child.stdout.readline())
    data.close()  # the child waits for it
    rest = child.stdout.read()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    code = child.poll()
    child.send_signal(signal.SIGKILL)  # nothing, or another process might be hit
    found.append({**said, "told": child.pid, "code": code, "rest": rest.decode()})
print(json.dumps({"parent": os.getpid(), "server": process.pid, "children": found, "late": server.fork(2, data, talk)}))
"""

SERVER = """
import json, os, socket, sys
from forebay_server.service.group.fork_server import wait_for_order

order = wait_for_order(socket.socket(fileno=int(sys.argv[2])), int(sys.argv[1]))
if order is not None:
    print(json.dumps({"number": order.front_end, "pid": os.getpid(), "ppid": os.getppid(), "group": os.getpgid(0)}))
    sys.stdout.flush()
    socket.socket(fileno=order.sockets[0]).recv(1)
    print("end")
    sys.exit(7 + order.front_end)
"""

IMPORTING = """
import os, sys, threading
from forebay_server.service.tuning import tune_process
tune_process()
import forebay_server.service.group.front_end_server
from forebay_server.service.standard_error import STANDARD_ERROR

pid = os.fork()
if not pid:
    os._exit(len(os.listdir("/proc/self/task")))
_, status = os.waitpid(pid, 0)
assert "av" in sys.modules  # no Open waits for it
print(threading.active_count(), os.waitstatus_to_exitcode(status), len(os.listdir("/proc/self/task")))
"""

LACKING = """
import errno, os
from forebay_server.service.group import fork_server

fork = os.fork

def first():
    os.fork = second
    return fork()

def second():
    raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

os.fork = first
try:
    fork_server._fork(os.getpid())
except OSError as error:
    print(errno.errorcode[error.errno])
"""

ABANDONED = """
import os, socket
from forebay_server.service.group.fork_server import _wait_for_adoption

def code_after(is_pid_read):
    ours, theirs = socket.socketpair()
    theirs.send(b"123")
    if is_pid_read:
        ours.recv(3)
    ours.close()
    pid = os.fork()
    if not pid:
        _wait_for_adoption(theirs)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

print(code_after(is_pid_read=True), code_after(is_pid_read=False))
"""


FEW_FILES = """
import json, os, resource, signal, socket, subprocess, sys
import psutil
from forebay_server.service.clock import MonotonicClock
from forebay_server.service.group.fork_server import ForkServer, adopt_orphans
from forebay_server.service.group.starts import Starts
from forebay_server.service.settings import load_settings

assert adopt_orphans()
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
process = subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid()), str(theirs.fileno())],
                           pass_fds=[theirs.fileno()])
theirs.close()
settings = load_settings({}, None, {}).values.model_copy(update={"engines": 2})
starts = Starts(settings, 1, "127.0.0.1:1", [], os.environ, print, print, print, MonotonicClock())
starts._fork_server = ForkServer(process, ours)
starts._fork_server.has_started = True
engine, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
with starts._controls.adding_engine(0) as connect:
    connect(engine)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
found, child, free = [], None, 0
while child is None:
    held = []
    try:
        while True:
            held.append(os.dup(0))
    except OSError:
        pass
    for _ in range(free):
        os.close(held.pop())
    try:
        child = starts.front_end(0)
    except OSError as error:
        pass
    for each in held:
        os.close(each)
    known = {process.pid, child and child.pid}
    found.append(len([each for each in psutil.Process().children() if each.pid not in known]))
    free += 1
starts._fork_server.close()
process.wait()
for each in psutil.Process().children():
    each.kill()
print(json.dumps(found))
"""


def run(*command):
    done = subprocess.run(
        [sys.executable, "-c", *command], capture_output=True, text=True, timeout=HANG_GUARD_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def ordered():
    return json.loads(run(PARENT, SERVER))


def test_new_processes_are_children_of_the_parent_and_outlive_the_fork_server(ordered):
    for number, child in enumerate(ordered["children"]):
        assert child["number"] == number
        assert child["ppid"] == ordered["parent"]
        assert child["told"] == child["pid"] == child["group"] != ordered["server"]
        assert child["rest"] == "end\n"


def test_the_parent_gets_their_exit_codes(ordered):
    assert [child["code"] for child in ordered["children"]] == [7, 8]


def test_a_fork_server_that_has_ended_gives_no_process(ordered):
    assert ordered["late"] is None


def test_where_descriptors_run_out_no_process_is_left_that_the_parent_does_not_know():
    """However many descriptors are free: a process is started and connected, or none is there."""
    left = json.loads(run(FEW_FILES, SERVER))
    assert len(left) > 4
    assert not any(left)


def test_the_imports_of_a_front_end_process_leave_one_thread_to_fork():
    assert run(IMPORTING).split() == ["1", "1", "1"]


def test_a_lack_of_memory_in_the_process_between_is_told_as_such():
    assert run(LACKING).split() == ["ENOMEM"]


def test_a_new_process_ends_if_the_fork_server_was_killed_before_it_read_the_pid():
    assert run(ABANDONED).split() == ["0", "1"]

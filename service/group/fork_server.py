"""A process that has imported the libraries of a front-end process, and makes front-end processes by fork.

Theory of operation
    Importing its libraries takes a process a second of CPU; a fork of one that has them takes milliseconds. So the
    parent starts one fork server beside the engine process, and orders front-end processes from it: at the start, and
    whenever one has died. They share the memory of the libraries.

    The new process has to be a child of the parent, not of the fork server: the parent waits for its end, and the end
    of the fork server must not be its own. So the fork server forks twice and the process between ends at once. The
    kernel then gives the new process to the nearest ancestor that takes orphans in (PR_SET_CHILD_SUBREAPER), which is
    the parent. Only then does the new process go on, and is its pid told.

    A fork copies one thread and leaves locks of others as they are. The fork server has one thread: it opens no channel
    and no server of gRPC, starts no loop, and writes no log. OpenBLAS ends its threads before a fork by itself. To
    import grpc starts no thread and nothing that a fork breaks (tests/unit/group/test_fork_server.py).

    It ends when the parent has closed its end of the socket, or has died. Signals stay blocked in it.

On the wire a SOCK_SEQPACKET message is an order, the number of a front-end process with the descriptors of its sockets
and of its standard output, or its answer: a pid, or the number of an error.
"""

import contextlib
import ctypes
import errno
import gc
import json
import os
import signal
import socket
import subprocess
from typing import IO, NamedTuple

from forebay_server.service.child import bind_to_parent

ANSWER_TIMEOUT_S = 5.0  # a fork takes milliseconds; a fork server that takes longer is stopped
MOST_DESCRIPTORS = 3  # of an order
_MAX_MESSAGE_BYTES = 4096
_PR_SET_CHILD_SUBREAPER = 36  # from linux/prctl.h


class Order(NamedTuple):
    """A front-end process to be, as it knows itself.

    Attributes:
        front_end: its number.
        sockets: descriptors of those for frames and for messages; where there are several engine processes, of the one
            to the parent alone.
    """

    front_end: int
    sockets: tuple[int, ...]


# --- in the parent ----------------------------------------------------------------------------------------------------


class ForkedProcess:
    """A child of this process that it did not start. The part of subprocess.Popen that `service.parent` uses.

    Attributes:
        pid: of the process.
        stdout: its standard output.
        returncode: as Popen's, after `poll`.
    """

    def __init__(self, pid: int, stdout: IO[bytes]) -> None:
        self.pid = pid
        self.stdout: IO[bytes] | None = stdout
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, or minus the signal that ended it; None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def send_signal(self, sig: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, sig)


class ForkServer:
    """The parent's side. Thread: main.

    Args:
        process: the fork server.
        orders: the socket to it; owned from now on.

    Attributes:
        has_started: whether it takes orders: it has written a line, and writes none before. Set by the owner.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", orders: socket.socket) -> None:
        self.has_started = False
        self._process = process
        self._orders = orders
        orders.settimeout(ANSWER_TIMEOUT_S)

    def fork(self, front_end: int, *sockets: socket.socket) -> ForkedProcess | None:
        """Return a new front-end process; None if the fork server has ended, or had to be ended.

        Raises OSError where the machine has no more processes or descriptors.

        Args:
            front_end: its number.
            sockets: see `Order`; they stay this process's.
        """
        reader, writer = os.pipe()
        stdout = os.fdopen(reader, "rb", buffering=0)
        try:
            answer = self._order(front_end, [*(each.fileno() for each in sockets), writer])
        finally:
            os.close(writer)
        if "pid" in answer:
            return ForkedProcess(answer["pid"], stdout)
        stdout.close()
        if "errno" in answer:
            raise OSError(answer["errno"], os.strerror(answer["errno"]))
        self.close()
        return None

    def _order(self, front_end: int, descriptors: list[int]) -> dict[str, int]:
        """Return the answer to an order; empty if there is none."""
        try:
            order = json.dumps({"front_end": front_end, "descriptors": len(descriptors)}).encode()
            socket.send_fds(self._orders, [order], descriptors)
            return dict(json.loads(self._orders.recv(_MAX_MESSAGE_BYTES) or b"{}"))
        except OSError:  # among them TimeoutError
            return {}

    def close(self) -> None:
        """End it. Idempotent."""
        self._orders.close()
        self._process.kill()  # also one that is stopped; it holds nothing


def adopt_orphans() -> bool:
    """Make the kernel give orphaned descendants to this process; return whether it does."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    return prctl is not None and prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


# --- in the fork server -----------------------------------------------------------------------------------------------


def wait_for_order(orders: socket.socket, parent_pid: int) -> Order | None:
    """Fork for every order. Returns in each new process, with its order, and at the end in the fork server: None.

    Args:
        orders: the socket to the parent.
        parent_pid: of the process that adopts the new ones.
    """
    gc.collect()
    gc.freeze()  # a collection in a new process would write to every page that it shares
    while True:
        try:
            message, descriptors, _, _ = socket.recv_fds(orders, _MAX_MESSAGE_BYTES, MOST_DESCRIPTORS)
        except OSError:
            return None
        if not message:
            return None
        pid, answer = -1, {"errno": errno.EMFILE}
        if len(descriptors) == json.loads(message)["descriptors"]:
            try:
                pid = _fork(parent_pid)
                answer = {"pid": pid}
            except OSError as error:
                answer = {"errno": error.errno or errno.EAGAIN}
        if pid == 0:
            orders.close()
            *sockets, stdout = descriptors
            os.dup2(stdout, 1)
            os.close(stdout)
            return Order(json.loads(message)["front_end"], tuple(sockets))
        for each in descriptors:
            os.close(each)
        with contextlib.suppress(OSError):  # the parent has gone: the next read says so
            orders.send(json.dumps(answer).encode())


def _fork(parent_pid: int) -> int:
    """Fork a process that becomes a child of the parent; return its pid, and 0 in it. Raises OSError."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        between = os.fork()
        if between == 0:
            _fork_and_end(theirs)
            ours.close()
            _wait_for_adoption(theirs)
            bind_to_parent(parent_pid, signal.SIGTERM)
            os.setpgid(0, 0)  # Ctrl-C goes to the parent, which passes it on
            return 0
        theirs.close()
        pid = ours.recv(_MAX_MESSAGE_BYTES)  # or minus the number of an error
        os.waitpid(between, 0)
        told = int(pid or -errno.EAGAIN)
        if told < 0:
            raise OSError(-told, os.strerror(-told))
        return told


def _wait_for_adoption(between: socket.socket) -> None:
    """In the new process: return when the process between has ended, or end: none knows of this one."""
    try:
        between.recv(1)  # the end of file
    except OSError:  # the fork server was killed before it read the pid
        os._exit(1)


def _fork_and_end(tell: socket.socket) -> None:
    """In the process between: fork, tell the pid, and end. Returns in the new process."""
    try:
        pid = os.fork()
        if pid == 0:
            return
        tell.send(str(pid).encode())
    except OSError as error:
        tell.send(str(-(error.errno or errno.EAGAIN)).encode())
    os._exit(0)

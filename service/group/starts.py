"""Starts the processes of a group and connects them, and keeps a fork server for those that come later.

Thread: the main thread of the parent.
"""

import contextlib
import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

from forebay_server.service.child import how_it_ended, start_child
from forebay_server.service.clock import Clock
from forebay_server.service.group.engine_end import has_hung_up, is_ending
from forebay_server.service.group.fork_server import ForkServer
from forebay_server.service.group.group_settings import engine_settings, front_end_settings
from forebay_server.service.group.restarts import Restarts
from forebay_server.service.parent import ChildProcess, Waiting
from forebay_server.service.settings import ServeSettings, to_environment

ROLE_ENGINE, ROLE_FRONT_END, ROLE_FORK_SERVER = "engine", "front-end", "fork-server"


REMEDIES = {
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.EAGAIN: "raise the limit of processes (ulimit -u, or pids of the control group)",
    errno.ENOMEM: "give the machine or the control group more memory",
}


class GroupError(Exception):
    """The group cannot serve. The message has the reason and a remedy."""

    @classmethod
    def of_start(cls, error: OSError) -> "GroupError":
        """Return the error of a process that could not be started."""
        remedy = REMEDIES.get(error.errno or 0)
        return cls(f"cannot start a process of the server: {error.strerror}" + (f"; {remedy}" if remedy else ""))


class Starts:
    """See the module. Raises OSError where a process cannot be started.

    Args:
        settings: of the group.
        count: of front-end processes.
        address: with a real port number.
        options: of the processes: `--debug`.
        environment: of this process.
        say: writes one line for the operator.
        on_problem: called with an error after which the group cannot go on.
        give_up: called with what has ended again and again.
        clock: source of monotonic nanoseconds.
    """

    def __init__(
        self,
        settings: ServeSettings,
        count: int,
        address: str,
        options: Sequence[str],
        environment: Mapping[str, str],
        say: Callable[[str], None],
        on_problem: Callable[[GroupError], None],
        give_up: Callable[[str], None],
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._count = count
        self._address = address
        self._options = options
        self._environment = environment
        self._say = say
        self._on_problem = on_problem
        self._give_up = give_up
        self._restarts = Restarts(clock)  # of the fork server
        self._control: socket.socket | None = None
        self._engine: subprocess.Popen[bytes] | None = None
        self._fork_server: ForkServer | None = None
        self._is_ending = False

    def engine(self) -> ChildProcess:
        """Start the engine process."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._control = ours
            self._engine = self._start(ROLE_ENGINE, engine_settings(self._settings, self._count), theirs)
            return self._engine

    def is_engine_ending(self) -> bool:
        """Whether the engine process has ended or is about to."""
        if self._engine is None or self._control is None:
            return False
        return has_hung_up(self._control) or is_ending(self._engine.pid)

    def front_end(self, index: int) -> ChildProcess | None:
        """Start a front-end process and hand the other ends of its sockets to the engine process.

        Returns None while there is no fork server that takes orders.
        """
        if self._fork_server is None or not self._fork_server.has_started:
            return None
        data, their_data = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        talk, their_talk = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with data, their_data, talk, their_talk:
            process = self._fork_server.fork(index, their_data, their_talk)
            if process is not None and self._control is not None:
                with contextlib.suppress(OSError):  # the engine process has ended, which says so by itself
                    fds = [data.fileno(), talk.fileno()]
                    socket.send_fds(self._control, [json.dumps({"front_end": index}).encode()], fds)
            return process

    def keep_fork_server(self, waiting: Waiting) -> None:
        """Start a fork server unless there is one, or the last one has just ended."""
        if not self._restarts.is_due() or self._fork_server is not None:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        own = front_end_settings(self._settings, self._count, self._address)
        with theirs, contextlib.ExitStack() as on_error:
            on_error.enter_context(ours)
            process = self._start(ROLE_FORK_SERVER, own, theirs)
            on_error.pop_all()
        server = self._fork_server = ForkServer(process, ours)

        def on_end(code: int) -> None:
            server.close()
            self._fork_server = None
            if self._is_ending:
                return
            what = f"the process that starts front-end processes {how_it_ended(code)}"
            if code > 0 and not server.has_started:  # a mistake that the next one would make, too
                self._on_problem(GroupError(what))
            elif not self._restarts.allow():
                self._give_up(what)
            else:
                self._say(f"{what}; starting it anew")

        def on_line(_: str) -> None:
            server.has_started = True

        waiting.add(process, on_end, on_line)

    def put_off(self) -> None:
        """The fork server cannot be started now: try again later."""
        self._restarts.put_off()

    def pause_s(self) -> float | None:
        """Return the time until a fork server is to be started; None: there is one, or none is needed."""
        return None if self._is_ending else self._restarts.pause_s()

    def end_fork_server(self) -> None:
        """End the fork server; no process is started any more. Idempotent."""
        self._is_ending = True
        if self._fork_server is not None:
            self._fork_server.close()

    def close(self) -> None:
        """Close the control socket."""
        if self._control is not None:
            self._control.close()

    def _start(self, role: str, settings: ServeSettings, end: socket.socket) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-P", "-m", "forebay_server.service.cli.as_group_process"]
        command += [str(os.getpid()), role, str(end.fileno()), *self._options]
        return start_child(command, to_environment(settings, self._environment), subprocess.PIPE, [end.fileno()])

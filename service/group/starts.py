"""Starts the processes of a group and connects them, and keeps a fork server for those that come later.

Thread: the main thread of the parent.
"""

import contextlib
import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

from forebay_server.service.child import how_it_ended, start_child
from forebay_server.service.clock import Clock
from forebay_server.service.group.controls import Controls, hand_over
from forebay_server.service.group.engine_end import has_hung_up, is_ending
from forebay_server.service.group.fork_server import ForkServer
from forebay_server.service.group.group_settings import engine_settings, front_end_settings
from forebay_server.service.group.memory_file import MemoryFile
from forebay_server.service.group.memory_layout import PAGE_BYTES
from forebay_server.service.group.restarts import Restarts
from forebay_server.service.parent import ChildProcess, Waiting
from forebay_server.service.settings import ServeSettings, to_environment

PERMITS_NAME = "forebay permits"
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
        count: of front-end processes; `settings.engines` is the number of engine processes.
        address: with a real port number.
        options: of the processes: `--debug`.
        environment: of this process.
        say: writes one line for the operator.
        on_problem: called with an error after which the group cannot go on.
        give_up: called with what has ended again and again.
        clock: source of monotonic nanoseconds.

    Attributes:
        admin_address: of the first engine process, with a real port number, for one that takes its place.
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
        self.admin_address: str | None = None
        self._engines = int(settings.engines)
        self._controls = Controls()
        self._permits_file = MemoryFile.create(PERMITS_NAME, PAGE_BYTES) if self._engines > 1 else None
        self._engine: subprocess.Popen[bytes] | None = None  # the latest
        self._fork_server: ForkServer | None = None
        self._is_ending = False

    def engine(self, index: int) -> ChildProcess:
        """Start an engine process, and connect it with the processes that run."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, self._controls.adding_engine(index) as connect, contextlib.ExitStack() as on_error:
            on_error.enter_context(ours)
            own, file = engine_settings(self._settings, self._count, index), self._permits_file
            if index == 0 and self.admin_address is not None:
                own = own.model_copy(update={"admin_address": self.admin_address})
            of_several = [] if file is None else [str(index), str(self._engines), str(file.fd)]
            self._engine = self._start(ROLE_ENGINE, own, theirs, of_several, [] if file is None else [file.fd])
            on_error.pop_all()
            connect(ours)
        return self._engine

    def is_engine_ending(self) -> bool:
        """Whether the only engine process has ended or is about to."""
        control = self._controls.engine(0)
        if self._engines > 1 or self._engine is None or control is None:
            return False
        return has_hung_up(control) or is_ending(self._engine.pid)

    def front_end(self, index: int) -> ChildProcess | None:
        """Start a front-end process and connect it with the engine processes.

        Returns None while there is no fork server that takes orders.
        """
        if self._fork_server is None or not self._fork_server.has_started:
            return None
        if self._engines > 1:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs, self._controls.adding_front_end(index) as connect, contextlib.ExitStack() as on_error:
                on_error.enter_context(ours)
                process = self._fork_server.fork(index, theirs)
                if process is not None:
                    on_error.pop_all()
                    connect(ours)
            return process
        data, their_data = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        talk, their_talk = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with data, their_data, talk, their_talk:
            process = self._fork_server.fork(index, their_data, their_talk)
            control = self._controls.engine(0)
            if process is not None and control is not None:
                hand_over(control, {"front_end": index}, data, talk)
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
        """Close the control sockets."""
        self._controls.close()
        if self._permits_file is not None:
            self._permits_file.close()

    def _start(
        self, role: str, settings: ServeSettings, end: socket.socket, more: Sequence[str] = (), fds: Sequence[int] = ()
    ) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-P", "-m", "forebay_server.service.cli.as_group_process"]
        command += [str(os.getpid()), role, str(end.fileno()), *more, *self._options]
        environment = to_environment(settings, self._environment)
        return start_child(command, environment, subprocess.PIPE, [end.fileno(), *fds])

"""Runs a group: starts its processes, connects them, reads their ready lines, and ends them in order.

The parent imports neither grpc nor CUDA, so that it starts a front-end process within a moment. For each it
makes two pairs of sockets and gives one end of both to the new process, the other ends to the engine process, over the
control socket that the engine process was started with (docs/adr/0160):

    data    SOCK_SEQPACKET  descriptors of frames and answers
    talk    SOCK_STREAM     everything else: models, calls that concern the whole group, statistics

It also holds the port, bound and not listening, so that no other program takes it while processes come and go.

Thread: the main thread, which waits for everything at once (service.parent).
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from forebay_server.service.child import start_child
from forebay_server.service.clock import MonotonicClock
from forebay_server.service.cores import usable_cores
from forebay_server.service.frontend.binding import why_not
from forebay_server.service.frontend.unix_socket import SocketPathError, socket_place
from forebay_server.service.group.engine_end import has_hung_up, is_ending
from forebay_server.service.group.processes import ENGINE, ProcessGroup
from forebay_server.service.parent import Waiting
from forebay_server.service.ready import STANDARD_OUTPUT, ReadyError, tell_ready
from forebay_server.service.settings import LEAST_RECEPTION_BYTES, ServeSettings, to_environment
from forebay_server.service.standard_error import EXIT_TIMEOUT_S, LineWriter, say

ROLE_ENGINE, ROLE_FRONT_END = "engine", "front-end"


class GroupError(Exception):
    """The group cannot serve. The message has the reason and a remedy."""


def run_group(settings: ServeSettings, count: int, options: Sequence[str], environment: Mapping[str, str]) -> int:
    """Serve with `count` front-end processes until a signal comes or the engine process ends. Thread: main.

    Args:
        settings: checked.
        count: of front-end processes, at least 1.
        options: of the processes: `--debug`.
        environment: of this process.

    Returns:
        The exit code.

    Raises:
        GroupError: the address or the unix socket cannot be listened on, or a process cannot be started.
        ReadyError: the ready file or the ready line cannot be written.
    """
    problems: list[GroupError | ReadyError] = []
    output = LineWriter(STANDARD_OUTPUT)

    def end(error: ReadyError | None) -> None:
        if error is not None:
            problems.append(error)
            os.kill(os.getpid(), signal.SIGCHLD)  # on a thread of its own: it wakes the main thread, which decides

    def on_ready(engine: dict[str, Any], front_ends: list[dict[str, Any]]) -> None:
        ready = engine | {"address": front_ends[0]["address"], "uds": front_ends[0]["uds"], "pid": os.getpid()}
        roles = [(ROLE_ENGINE, engine), *((ROLE_FRONT_END, each) for each in front_ends)]
        ready["processes"] = [{"role": role, "pid": line["pid"]} for role, line in roles]
        tell_ready(json.dumps(ready), settings.ready_file, end)

    _check_unix_socket(settings.uds)
    with reserved(settings.address) as address:
        starts = _Starts(settings, count, address, options, environment)
        group = ProcessGroup(count, on_ready, output.put, say, MonotonicClock(), starts.is_engine_ending)
        with Waiting(group.on_signal) as waiting:
            with contextlib.closing(starts):
                _run(group, starts, waiting, problems)
            group.requests.ignore_rest()
    output.close(EXIT_TIMEOUT_S)
    if problems:
        raise problems[0]
    return group.exit_code


def _run(group: ProcessGroup, starts: "_Starts", waiting: Waiting, problems: list[GroupError | ReadyError]) -> None:
    """Start the wanted processes, end all when there is a problem, and wait until all have ended."""
    while group.wanted or not waiting.is_over:
        for index in group.wanted:
            try:
                process = starts.engine() if index == ENGINE else starts.front_end(index)
            except OSError as error:
                problems.append(GroupError(f"cannot start a process of the server: {error.strerror}"))
                break
            group.add(index, process)
            waiting.add(process, partial(group.on_end, index), partial(group.on_line, index))
        if problems:
            group.stop(signal.SIGTERM)
        if not waiting.is_over:  # otherwise no process was started, and no event would wake the selector
            waiting.wait(group.kill_in_s())


class _Starts:
    """Starts processes and connects them. Raises OSError if that cannot be done."""

    def __init__(
        self, settings: ServeSettings, count: int, address: str, options: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        self._settings = settings
        self._count = count
        self._address = address
        self._options = options
        self._environment = environment
        self._control: socket.socket | None = None
        self._engine: subprocess.Popen[bytes] | None = None

    def engine(self) -> "subprocess.Popen[bytes]":
        """Start the engine process."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._control = ours
            own = engine_settings(self._settings, self._count)
            self._engine = self._start(ROLE_ENGINE, 0, own, [theirs])
            return self._engine

    def is_engine_ending(self) -> bool:
        """Whether the engine process has ended or is about to."""
        if self._engine is None or self._control is None:
            return False
        return has_hung_up(self._control) or is_ending(self._engine.pid)

    def front_end(self, index: int) -> "subprocess.Popen[bytes]":
        """Start a front-end process and hand the other ends of its sockets to the engine process."""
        data, their_data = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        talk, their_talk = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        own = front_end_settings(self._settings, self._count, index, self._address)
        with data, their_data, talk, their_talk:
            process = self._start(ROLE_FRONT_END, index, own, [their_data, their_talk])
            if self._control is not None:
                with contextlib.suppress(OSError):  # the engine process has ended, which says so by itself
                    fds = [data.fileno(), talk.fileno()]
                    socket.send_fds(self._control, [json.dumps({"front_end": index}).encode()], fds)
            return process

    def _start(
        self, role: str, index: int, settings: ServeSettings, sockets: list[socket.socket]
    ) -> "subprocess.Popen[bytes]":
        numbers = [each.fileno() for each in sockets]
        command = [sys.executable, "-P", "-m", "forebay_server.service.cli.as_group_process"]
        command += [str(os.getpid()), role, str(index), *map(str, numbers), *self._options]
        return start_child(command, to_environment(settings, self._environment), subprocess.PIPE, numbers)

    def close(self) -> None:
        """Close the control socket."""
        if self._control is not None:
            self._control.close()


def engine_settings(settings: ServeSettings, count: int) -> ServeSettings:
    """Return the settings of the engine process. It knows the number of front-end processes by `front_ends`."""
    return settings.model_copy(update={"front_ends": count, "ready_file": None, "uds": None})


def front_end_settings(settings: ServeSettings, count: int, index: int, address: str) -> ServeSettings:
    """Return the settings of one front-end process. The unix socket is the first one's.

    Limits that no process can share with the others are divided. A process has its part of them, rounded up.
    """
    return settings.model_copy(
        update={
            "address": address,
            "share_port": True,
            "front_ends": count,
            "ready_file": None,
            "uds": settings.uds if index == 0 else None,
            "max_connections": -(-settings.max_connections // count),
            "reception_bytes": max(LEAST_RECEPTION_BYTES, -(-settings.reception_bytes // count)),
            "worker_threads": settings.worker_threads or max(1, usable_cores() // count),
        }
    )


def _check_unix_socket(path: Path | None) -> None:
    """Raise GroupError now: the front-end process would find it after the models are loaded."""
    if path is None:
        return
    try:
        with socket_place(path):
            pass
    except SocketPathError as error:
        raise GroupError(str(error)) from None


@contextlib.contextmanager
def reserved(address: str) -> Iterator[str]:
    """Hold a port for processes that share it; yield the address with a real port number. Raises GroupError."""
    host, _, port = address.rpartition(":")
    try:
        holder = _hold(host.strip("[]"), int(port))
    except OSError as error:
        raise GroupError(f"cannot listen on {address}: {why_not(error)}") from None
    with holder:
        yield f"{host}:{holder.getsockname()[1]}"


def _hold(host: str, port: int) -> socket.socket:
    """Return a socket that is bound and does not listen, to a port that no other program uses, shared or not."""
    family, kind, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the last server's connections may linger
        probe.bind(place)
        place = probe.getsockname()
    holder = socket.socket(family, kind)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    holder.bind(place)
    return holder

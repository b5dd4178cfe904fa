"""Runs a group: starts its processes, connects them, reads their ready lines, and ends them in order.

The parent imports neither grpc nor CUDA. It starts the engine process, and beside it a fork server, which has imported
the libraries of front-end processes and makes these within a moment (`fork_server`). For each it makes two pairs of
sockets and gives one end of both to the new process, the other ends to the engine process, over the control socket that
the engine process was started with (docs/adr/0160); with several engine processes `controls` does so (docs/adr/0240):

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
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from forebay_server.service.clock import MonotonicClock
from forebay_server.service.frontend.binding import AddressError, why_not
from forebay_server.service.frontend.place import check_unix_socket
from forebay_server.service.group.fork_server import adopt_orphans
from forebay_server.service.group.processes import ENGINE, ProcessGroup
from forebay_server.service.group.starts import REMEDIES, ROLE_ENGINE, ROLE_FRONT_END, GroupError, Starts
from forebay_server.service.parent import Waiting
from forebay_server.service.ready import STANDARD_OUTPUT, ReadyError, tell_ready
from forebay_server.service.settings import ServeSettings
from forebay_server.service.standard_error import EXIT_TIMEOUT_S, LineWriter, say


def run_group(settings: ServeSettings, count: int, options: Sequence[str], environment: Mapping[str, str]) -> int:
    """Serve with `count` front-end processes until a signal comes or the only engine process ends. Thread: main.

    Args:
        settings: checked; `engines` is a number.
        count: of front-end processes, at least 1.
        options: of the processes: `--debug`.
        environment: of this process.

    Returns:
        The exit code.

    Raises:
        AddressError: the address or the unix socket cannot be listened on.
        GroupError: a process cannot be started.
        ReadyError: the ready file or the ready line cannot be written.
    """
    problems: list[GroupError | ReadyError] = []
    output = LineWriter(STANDARD_OUTPUT)

    def end(error: ReadyError | None) -> None:
        if error is not None:
            problems.append(error)
            os.kill(os.getpid(), signal.SIGCHLD)  # on a thread of its own: it wakes the main thread, which decides

    def on_ready(engines: list[dict[str, Any]], front_ends: list[dict[str, Any]]) -> None:
        starts.admin_address = engines[0]["admin_address"]
        ready = engines[0] | {"address": front_ends[0]["address"], "uds": front_ends[0]["uds"], "pid": os.getpid()}
        by_role = {ROLE_ENGINE: engines, ROLE_FRONT_END: front_ends}
        ready["processes"] = [{"role": role, "pid": each["pid"]} for role in by_role for each in by_role[role]]
        tell_ready(json.dumps(ready), settings.ready_file, end)

    def on_problem(error: GroupError) -> None:
        problems.append(error)
        group.stop(signal.SIGTERM)

    def give_up(what: str) -> None:
        group.give_up(what)

    if not adopt_orphans():
        raise GroupError("front-end processes need a kernel that has PR_SET_CHILD_SUBREAPER; serve with --front-ends 0")
    check_unix_socket(settings.uds)
    with reserved(settings.address) as address:
        clock = MonotonicClock()
        starts = Starts(settings, count, address, options, environment, say, on_problem, give_up, clock)
        ending = starts.is_engine_ending
        group = ProcessGroup(count, on_ready, output.put, say, clock, ending, int(settings.engines))
        with Waiting(group.on_signal) as waiting:
            with contextlib.closing(starts):
                _run(group, starts, waiting, problems)
            group.requests.ignore_rest()
    output.close(EXIT_TIMEOUT_S)
    if problems:
        raise problems[0]
    return group.exit_code


def _run(group: ProcessGroup, starts: Starts, waiting: Waiting, problems: list[GroupError | ReadyError]) -> None:
    """Start the wanted processes, end all when there is a problem, and wait until all have ended."""
    while group.wanted or not waiting.is_over:
        try:
            _start_wanted(group, starts, waiting)
        except OSError as error:
            problem = GroupError.of_start(error)
            if group.has_served and error.errno in REMEDIES:  # the others serve, and the machine may have more soon
                say(f"{problem}; trying again")
                group.put_off()
                starts.put_off()
            else:
                problems.append(problem)
        if problems:
            group.stop(signal.SIGTERM)
        if group.is_stopping:
            starts.end_fork_server()
        if not waiting.is_over:  # otherwise no process was started, and no event would wake the selector
            pauses = [group.kill_in_s(), group.pause_s(), starts.pause_s()]
            waiting.wait(min((each for each in pauses if each is not None), default=None))


def _start_wanted(group: ProcessGroup, starts: Starts, waiting: Waiting) -> None:
    """Start the wanted processes, as far as they can be started now, and a fork server. Raises OSError."""
    for index in group.wanted:
        process = starts.engine(ENGINE - index) if index < 0 else starts.front_end(index)
        if process is None:
            break  # the first line of the fork server brings the next turn
        group.add(index, process)
        waiting.add(process, partial(group.on_end, index), partial(group.on_line, index))
    if not group.is_stopping:
        starts.keep_fork_server(waiting)


@contextlib.contextmanager
def reserved(address: str) -> Iterator[str]:
    """Hold a port for processes that share it; yield the address with a real port number. Raises AddressError."""
    host, _, port = address.rpartition(":")
    try:
        holder = _hold(host.strip("[]"), int(port))
    except OSError as error:
        raise AddressError(f"cannot listen on {address}: {why_not(error)}") from None
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

"""`forebay serve --processes N`: several servers behind one port, each with an interpreter of its own.

Theory of operation
    One interpreter runs one thread at a time, and with a fast GPU it is the bottleneck. So this process starts N
    servers that share a port by SO_REUSEPORT, and the kernel distributes new connections among them. Each has its own
    models, batches and statistics, and an admin port of its own: the first one's number and those after it.

    This process holds the port, bound and not listening, so that others cannot take it and a port chosen by the system
    stays the same. The first server starts alone, because its measurements would be wrong beside others, and its cached
    costs serve the others. This process reads the children's standard output and prints one ready line when all are
    ready. When one ends by itself the others are drained, and its exit code becomes this process's; with `--supervise`
    each child supervises a server, so that it ends only when its server stays down (docs/adr/0064).

Thread: the main thread, which waits for everything at once (service.parent).
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from forebay_server.service.child import child_of, exit_code_of, how_it_ended
from forebay_server.service.clock import Clock, MonotonicClock
from forebay_server.service.frontend.binding import why_not
from forebay_server.service.parent import END_LIMIT_NS, Parent, Signalled, Waiting
from forebay_server.service.ready import STANDARD_OUTPUT, ReadyError, tell_ready
from forebay_server.service.settings import ServeSettings, to_environment
from forebay_server.service.standard_error import EXIT_TIMEOUT_S, LineWriter, say
from forebay_server.service.worker_pool import default_workers


class GroupError(Exception):
    """The group cannot serve. The message has the reason and a remedy."""


class ProcessGroup(Parent):
    """Decides when children start and end; starts and reads none itself. Owner: the main thread.

    Args:
        size: number of children.
        on_ready: called once, when all are ready, with the ready line of each.
        pass_on: called with every other line of their standard output.
        say: writes one line for the operator.
        clock: source of monotonic nanoseconds.
        are_supervised: whether each child supervises a server, which it kills first if it has to.
    """

    def __init__(
        self,
        size: int,
        on_ready: Callable[[list[dict[str, Any]]], None],
        pass_on: Callable[[str], None],
        say: Callable[[str], None],
        clock: Clock,
        *,
        are_supervised: bool = False,
    ) -> None:
        super().__init__(clock, END_LIMIT_NS * (2 if are_supervised else 1))
        self._size = size
        self._on_ready = on_ready
        self._pass_on = pass_on
        self._say = say
        self._ready: dict[int, dict[str, Any]] = {}
        self._has_told = False
        self._running: dict[int, Signalled] = {}
        self._added = 0
        self._code = 0

    @property
    def wanted(self) -> range:
        """The numbers of the children to start now: the first one, and when it serves, the others."""
        if self.is_stopping:
            return range(0)
        return range(self._added, self._size if self._ready else 1)

    def add(self, child: Signalled) -> None:
        """Add a started child; children are numbered from 0."""
        self._running[self._added] = child
        self._added += 1

    def children(self) -> Iterable[Signalled]:
        """Return the running children."""
        return self._running.values()

    @property
    def exit_code(self) -> int:
        """0, or the exit code of the first child that did not end with 0."""
        return self._code

    def on_line(self, index: int, line: str) -> None:
        """Handle a line of a child's standard output."""
        ready = _ready_of(line)
        if ready is None or self._has_told:  # after the group's ready line: the child's supervisor has restarted it
            self._pass_on(line)
            return
        self._ready[index] = ready
        if len(self._ready) == self._size:
            self._has_told = True
            self._on_ready([self._ready[number] for number in range(self._size)])

    def on_end(self, index: int, code: int) -> None:
        """Record that a child has ended; the first one that ends by itself ends the others."""
        del self._running[index]
        self._code = self._code or exit_code_of(code)
        if not self.is_stopping and self._running:
            self._say(f"server process {index} {how_it_ended(code)}; ending the others")
        self.stop(signal.SIGTERM)


def _ready_of(line: str) -> dict[str, Any] | None:
    with contextlib.suppress(ValueError):
        found = json.loads(line)
        if isinstance(found, dict) and found.get("event") == "ready":
            return found
    return None


@contextlib.contextmanager
def reserved(address: str) -> Iterator[str]:
    """Hold a port for servers that share it; yield the address with a real port number. Raises GroupError."""
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


def settings_of_children(settings: ServeSettings, address: str) -> list[ServeSettings]:
    """Return the settings of each server: equal, except for the values that each has for itself."""
    host, _, port = settings.admin_address.rpartition(":")
    found = []
    for index in range(settings.processes):
        own = {
            "address": address,
            "share_port": True,
            "processes": 1,
            "ready_file": None,
            "worker_threads": settings.worker_threads or max(1, default_workers() // settings.processes),
        }
        if settings.admin_address and int(port):
            own["admin_address"] = f"{host}:{int(port) + index}"
        found.append(settings.model_copy(update=own))
    return found


def run_group(settings: ServeSettings, options: Sequence[str], environment: Mapping[str, str]) -> int:
    """Serve with `settings.processes` processes until a signal comes or one of them ends. Thread: main.

    Args:
        settings: of them all, checked.
        options: options of `forebay serve` that are not settings.
        environment: of this process.

    Returns:
        The exit code.

    Raises:
        GroupError: the address cannot be listened on, or no process started.
        ReadyError: the ready file or the ready line cannot be written.
    """
    problems: list[GroupError | ReadyError] = []
    output = LineWriter(STANDARD_OUTPUT)

    def end(error: ReadyError | None) -> None:
        if error is not None:
            problems.append(error)
            os.kill(os.getpid(), signal.SIGCHLD)  # on a thread of its own: it wakes the main thread, which decides

    def on_ready(lines: list[dict[str, Any]]) -> None:
        processes = [{"pid": line["pid"], "admin_address": line["admin_address"]} for line in lines]
        ready = json.dumps(lines[0] | {"pid": os.getpid(), "admin_address": None, "processes": processes})
        tell_ready(ready, settings.ready_file, end)

    group = ProcessGroup(
        settings.processes, on_ready, output.put, say, MonotonicClock(), are_supervised="--supervise" in options
    )
    with reserved(settings.address) as address, Waiting(group.on_signal) as waiting:
        starts = [
            child_of(["serve", *options], to_environment(own, environment))
            for own in settings_of_children(settings, address)
        ]
        _run(group, starts, waiting, problems)
        group.requests.ignore_rest()
    output.close(EXIT_TIMEOUT_S)
    if problems:
        raise problems[0]
    return group.exit_code


def _run(
    group: ProcessGroup,
    starts: "Sequence[Callable[..., subprocess.Popen[bytes]]]",
    waiting: Waiting,
    problems: list[GroupError | ReadyError],
) -> None:
    """Start the wanted children, end them when there is a problem, and wait until all have ended."""
    while group.wanted or not waiting.is_over:
        for index in group.wanted:
            try:
                child = starts[index](subprocess.PIPE)
            except OSError as error:
                problems.append(GroupError(f"cannot start a server process: {error.strerror}"))
                break
            group.add(child)
            waiting.add(child, partial(group.on_end, index), partial(group.on_line, index))
        if problems:
            group.stop(signal.SIGTERM)
        if not waiting.is_over:  # otherwise no child was started, and no event would wake the selector
            waiting.wait(group.kill_in_s())

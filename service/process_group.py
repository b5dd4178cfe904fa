"""`forebay serve --processes N`: several servers behind one port, each with an interpreter of its own.

Theory of operation
    One interpreter runs one thread at a time, and with a fast GPU it is the bottleneck. So this process starts N
    servers that share a port by SO_REUSEPORT, and the kernel deals new connections out to them. Each has its own
    models, batches and statistics, and an admin port of its own: the first one's number and those after it.

    This process holds the port, bound and not listening, so that it is refused to others and stays the same when it was
    chosen by the system. The first server starts alone, for what it measures would be wrong beside others, and is kept
    for them. This process reads the children's standard output and says once that all are ready. When one ends by
    itself the others are drained, and its exit code is this process's; with `--supervise` each child looks after a
    server, so that only what stays down ends (docs/adr/0064).

Thread: the main thread; one more per child only reads its standard output and waits for its end.
"""

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from service.child import child_of, exit_code_of, how_it_ended, say, signals_to
from service.ready import write_whole
from service.settings import ServeSettings, to_environment
from service.worker_pool import default_workers

Event: TypeAlias = tuple[int, str | int]
"""A child's number, and a line that it wrote or the code with which it ended."""


class GroupError(Exception):
    """The group cannot serve. The message says why and what to do."""


class Signalled(Protocol):
    """The part of subprocess.Popen that a group needs."""

    @property
    def pid(self) -> int:
        """Of the process."""
        ...

    def send_signal(self, sig: int) -> None:
        """Send a signal, unless it has ended."""
        ...


class ProcessGroup:
    """Decides what becomes of the children; starts and reads none. Owner: the main thread.

    Args:
        size: how many there will be.
        on_ready: told once, when all are ready: the ready line of each.
        pass_on: told of every other line of their standard output.
        say: writes one line for the operator.
    """

    def __init__(
        self,
        size: int,
        on_ready: Callable[[list[dict[str, Any]]], None],
        pass_on: Callable[[str], None],
        say: Callable[[str], None],
    ) -> None:
        self._size = size
        self._on_ready = on_ready
        self._pass_on = pass_on
        self._say = say
        self._ready: dict[int, dict[str, Any]] = {}
        self._has_told = False
        self._running: dict[int, Signalled] = {}
        self._added = 0
        self._stop_signal: int | None = None
        self._code = 0

    def add(self, child: Signalled) -> None:
        """Take in a child that was started; they are numbered from 0."""
        self._running[self._added] = child
        self._added += 1
        if self._stop_signal is not None:  # it came while the child was being made
            child.send_signal(self._stop_signal)

    @property
    def is_over(self) -> bool:
        """Whether all that were taken in have ended."""
        return not self._running

    @property
    def has_ready(self) -> bool:
        """Whether at least one serves."""
        return bool(self._ready)

    @property
    def is_stopping(self) -> bool:
        """Whether all have been told to end."""
        return self._stop_signal is not None

    @property
    def exit_code(self) -> int:
        """0, or what the first child that did not end with 0 ended with."""
        return self._code

    def on_line(self, index: int, line: str) -> None:
        """Take a line of a child's standard output."""
        ready = _ready_of(line)
        if ready is None or self._has_told:  # told: its supervisor has started it anew
            self._pass_on(line)
            return
        self._ready[index] = ready
        if len(self._ready) == self._size:
            self._has_told = True
            self._on_ready([self._ready[number] for number in range(self._size)])

    def on_end(self, index: int, code: int) -> None:
        """Note that a child has ended; the first one that did so by itself ends the others."""
        del self._running[index]
        self._code = self._code or exit_code_of(code)
        if not self.is_stopping and self._running:
            self._say(f"server process {index} {how_it_ended(code)}; ending the others")
            self.stop(signal.SIGTERM)

    def stop(self, number: int) -> None:
        """Send a signal to all that run; the ends that follow are no surprise."""
        self._stop_signal = number
        self.tell(number)

    def tell(self, number: int) -> None:
        """Send a signal that does not end them to all that run."""
        for child in tuple(self._running.values()):
            child.send_signal(number)


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
    except OSError:
        raise GroupError(
            f"cannot listen on {address}: is it in use? stop the other process or give --address"
        ) from None
    with holder:
        yield f"{host}:{holder.getsockname()[1]}"


def _hold(host: str, port: int) -> socket.socket:
    """Return a socket that is bound and does not listen; of a port that nobody else uses, shared or not."""
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
    """Return what each server is told: the same, but for what one of several has for itself."""
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
        options: of `forebay serve` that are no settings.
        environment: of this process.

    Returns:
        The exit code.

    Raises:
        GroupError: the address cannot be listened on, or the ready file not written.
    """

    def tell_ready(lines: list[dict[str, Any]]) -> None:
        processes = [{"pid": line["pid"], "admin_address": line["admin_address"]} for line in lines]
        ready = json.dumps(lines[0] | {"pid": os.getpid(), "admin_address": None, "processes": processes})
        if settings.ready_file is not None:
            try:
                write_whole(settings.ready_file, ready)
            except OSError as error:
                path = settings.ready_file
                raise GroupError(f"cannot write {path}: {error.strerror}; give another --ready-file") from None
        _write(ready)

    group = ProcessGroup(settings.processes, tell_ready, _write, say)
    with reserved(settings.address) as address, signals_to(group.stop, group.tell):
        children: list[subprocess.Popen[str]] = []
        try:
            for own in settings_of_children(settings, address):
                start = child_of(["serve", *options], to_environment(own, environment))
                children.append(start(subprocess.PIPE))
                group.add(children[-1])
                if len(children) == 1 and not _is_ready(group, children[0]):
                    break
            _follow(group, children)
        except BaseException:
            group.stop(signal.SIGTERM)
            for child in children:
                child.wait()
            raise
    return group.exit_code


def _is_ready(group: ProcessGroup, first: "subprocess.Popen[str]") -> bool:
    """Wait until the first child serves, or never will: what it measures and keeps, the others find."""
    assert first.stdout is not None  # noqa: S101 - for mypy: it is a pipe
    while not group.has_ready and (line := first.stdout.readline()):
        group.on_line(0, line.rstrip("\n"))
    return group.has_ready and not group.is_stopping


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _follow(group: ProcessGroup, children: Sequence["subprocess.Popen[str]"]) -> None:
    """Tell the group what its children write and how they end, until all have ended."""
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def read(index: int, child: "subprocess.Popen[str]") -> None:
        with child:
            for line in child.stdout or ():
                events.put((index, line.rstrip("\n")))
            events.put((index, child.wait()))

    threads = [
        threading.Thread(target=read, args=each, name=f"server process {each[0]}") for each in enumerate(children)
    ]
    for thread in threads:
        thread.start()
    while not group.is_over:
        index, event = events.get()
        if isinstance(event, str):
            group.on_line(index, event)
        else:
            group.on_end(index, event)
    for thread in threads:
        thread.join()

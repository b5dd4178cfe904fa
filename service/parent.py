"""Signal handling and waiting of a process that watches over servers: the same for one server and for several.

Theory of operation
    `Parent` decides, and calls only its children's `send_signal`: it passes signals on. A first request to stop makes
    every child drain, and their ends are expected from then on. A second one makes them end at once, and a child that
    has not ended `END_LIMIT_NS` later is killed: it may hang, or not listen yet. A parent of parents waits longer, so
    that it does not kill them before they kill their own children.

    `Waiting` is the thin part: it waits for signals, for lines that children write and for their ends, all in one
    selector, and calls the handlers. Thread: main; the only other threads in such a process are those that write for
    it (service.standard_error, service.ready).
"""

import contextlib
import os
import selectors
import signal
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import IO, Protocol, Self

from forebay_server.service.clock import Clock
from forebay_server.service.signals import LOG_SIGNALS, STOP_SIGNALS, SignalInbox, StopRequest, StopRequests

END_LIMIT_NS = 2_000_000_000


class Signalled(Protocol):
    """The part of subprocess.Popen that a parent needs to decide."""

    def send_signal(self, sig: int) -> None:
        """Send a signal, unless the process has ended."""
        ...


class ChildProcess(Protocol):
    """The part of subprocess.Popen that waiting for a process needs."""

    @property
    def stdout(self) -> IO[bytes] | None:
        """Its standard output, if that is a pipe."""
        ...

    def poll(self) -> int | None:
        """Return the exit code, or minus the signal that ended it; None while it runs."""
        ...

    def send_signal(self, sig: int) -> None:
        """Send a signal, unless the process has ended."""
        ...


class Parent:
    """See the module.

    Args:
        clock: source of monotonic nanoseconds.
        end_limit_ns: time for the children to end after a second request.

    Attributes:
        requests: requests to stop.
    """

    def __init__(self, clock: Clock, end_limit_ns: int = END_LIMIT_NS) -> None:
        self._clock = clock
        self._end_limit_ns = end_limit_ns
        self.requests = StopRequests(clock)
        self._stop_signal: int | None = None
        self._kill_ns: int | None = None

    def children(self) -> Iterable[Signalled]:
        """Return the running children."""
        raise NotImplementedError

    @property
    def is_stopping(self) -> bool:
        """Whether the children were asked to end."""
        return self._stop_signal is not None

    def on_signal(self, number: int) -> None:
        """Handle a signal to this process."""
        if number in LOG_SIGNALS:
            self._tell(number)
        elif number in STOP_SIGNALS:
            match self.requests.take():
                case StopRequest.DRAIN:
                    self.stop(number)
                case StopRequest.END_AT_ONCE:
                    self._kill_ns = self._kill_ns or self._clock.now_ns() + self._end_limit_ns
                    self._tell(number)
                case StopRequest.NOTHING_NEW:
                    pass

    def stop(self, number: int) -> None:
        """Send a signal to all running children, once: they drain, and their ends are expected."""
        if self._stop_signal is None:
            self._stop_signal = number
            self._tell(number)

    def kill_in_s(self) -> float | None:
        """Return the remaining time of the running children; None: no limit. Kills them when it is over."""
        if self._kill_ns is None:
            return None
        left_ns = self._kill_ns - self._clock.now_ns()
        if left_ns <= 0:
            self._kill_ns = None
            self._tell(signal.SIGKILL)
            return None
        return left_ns / 1e9

    def _tell(self, number: int) -> None:
        for child in tuple(self.children()):
            child.send_signal(number)


class Waiting:
    """See the module's theory of operation.

    Args:
        on_signal: called with every signal of `service.signals`.
    """

    def __init__(self, on_signal: Callable[[int], None]) -> None:
        self._on_signal = on_signal
        self._inbox = SignalInbox()
        self._selector = selectors.DefaultSelector()
        self._running: dict[ChildProcess, Callable[[int], None]] = {}

    def __enter__(self) -> Self:
        self._inbox.__enter__()
        self._selector.register(self._inbox, selectors.EVENT_READ, self._read_signals)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._selector.close()
        self._inbox.__exit__(kind, error, trace)

    def add(
        self,
        child: ChildProcess,
        on_end: Callable[[int], None],
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        """Call `on_end` with the exit code of a child started within the block, or minus the signal that ended it.

        Args:
            child: its standard output is this process's or, with `on_line`, a pipe.
            on_end: called once.
            on_line: called with every whole line that the child, or a child of it, writes.
        """
        self._running[child] = on_end
        if on_line is not None and child.stdout is not None:
            lines = _Lines(child.stdout.fileno(), on_line)
            self._selector.register(child.stdout, selectors.EVENT_READ, lambda: self._read_lines(child, lines))

    @property
    def is_over(self) -> bool:
        """Whether all children, and all writers to their pipes, have ended."""
        return not self._running and len(self._selector.get_map()) == 1

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait until an event, or until the time is over, and call its handler."""
        happened = self._selector.select(timeout_s)
        for key, _ in sorted(happened, key=lambda each: each[0].fileobj is self._inbox):
            key.data()  # signals last: a child's output comes before its end

    def _read_signals(self) -> None:
        for number in self._inbox.read():
            self._on_signal(number)
        for child, code in [(child, child.poll()) for child in self._running]:
            if code is not None:
                self._running.pop(child)(code)

    def _read_lines(self, child: ChildProcess, lines: "_Lines") -> None:
        if not lines.read() and child.stdout is not None:
            self._selector.unregister(child.stdout)
            child.stdout.close()


class _Lines:
    """Splits the output of a pipe into whole lines."""

    def __init__(self, descriptor: int, on_line: Callable[[str], None]) -> None:
        self._descriptor = descriptor
        self._on_line = on_line
        self._rest = b""

    def read(self) -> bool:
        """Read the available data; return False at the end."""
        with contextlib.suppress(OSError):
            data = os.read(self._descriptor, 1 << 16)
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                self._on_line(line.decode(errors="replace"))
            return bool(data)
        return False

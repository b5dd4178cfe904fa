"""What a process that watches over servers has to do with signals, and how it waits: the same for one and for several.

Theory of operation
    `Parent` decides and touches nothing but its children's `send_signal`: it passes on what comes. A first request to
    stop makes every child drain, and their ends are no surprise any more. A second one makes them end at once, and what
    has not ended `END_LIMIT_NS` later is killed: it may hang, or not listen yet. A parent of parents waits for longer:
    it would kill those who have to kill.

    `Waiting` is the thin part: it waits for signals, for lines that children write and for their ends, all in one
    selector, and tells. Thread: main; no other runs in such a process but those that write for it
    (service.standard_error, service.ready).
"""

import contextlib
import os
import selectors
import signal
import subprocess
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Protocol, Self

from forebay_server.service.clock import Clock
from forebay_server.service.signals import LOG_SIGNALS, STOP_SIGNALS, SignalInbox, StopRequest, StopRequests

END_LIMIT_NS = 2_000_000_000


class Signalled(Protocol):
    """The part of subprocess.Popen that a parent needs to decide."""

    def send_signal(self, sig: int) -> None:
        """Send a signal, unless it has ended."""
        ...


class Parent:
    """See the module.

    Args:
        clock: time.
        end_limit_ns: how long the children may take to end once they were asked twice.

    Attributes:
        requests: to stop.
    """

    def __init__(self, clock: Clock, end_limit_ns: int = END_LIMIT_NS) -> None:
        self._clock = clock
        self._end_limit_ns = end_limit_ns
        self.requests = StopRequests(clock)
        self._stop_signal: int | None = None
        self._kill_ns: int | None = None

    def children(self) -> Iterable[Signalled]:
        """Return those that run."""
        raise NotImplementedError

    @property
    def is_stopping(self) -> bool:
        """Whether the children have been told to end."""
        return self._stop_signal is not None

    def on_signal(self, number: int) -> None:
        """Take a signal that came to this process."""
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
        """Send a signal to all that run, once: they drain, and the ends that follow are no surprise."""
        if self._stop_signal is None:
            self._stop_signal = number
            self._tell(number)

    def kill_in_s(self) -> float | None:
        """Return how long those that run may still take; None: as long as they need. Kills them when that is over."""
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
        on_signal: told of every signal of `service.signals`.
    """

    def __init__(self, on_signal: Callable[[int], None]) -> None:
        self._on_signal = on_signal
        self._inbox = SignalInbox()
        self._selector = selectors.DefaultSelector()
        self._running: dict[subprocess.Popen[bytes], Callable[[int], None]] = {}

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
        child: "subprocess.Popen[bytes]",
        on_end: Callable[[int], None],
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        """Tell `on_end` the exit code of a child that was started within the block, or minus the signal that ended it.

        Args:
            child: its standard output is ours or, with `on_line`, a pipe.
            on_end: told once.
            on_line: told every whole line that the child writes; what its own children write, too.
        """
        self._running[child] = on_end
        if on_line is not None and child.stdout is not None:
            lines = _Lines(child.stdout.fileno(), on_line)
            self._selector.register(child.stdout, selectors.EVENT_READ, lambda: self._read_lines(child, lines))

    @property
    def is_over(self) -> bool:
        """Whether all children have ended, and all that writes to their pipes."""
        return not self._running and len(self._selector.get_map()) == 1

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait until something has happened, or the time is over, and tell of it."""
        happened = self._selector.select(timeout_s)
        for key, _ in sorted(happened, key=lambda each: each[0].fileobj is self._inbox):
            key.data()  # signals last: what a child wrote comes before its end

    def _read_signals(self) -> None:
        for number in self._inbox.read():
            self._on_signal(number)
        for child in [child for child in self._running if child.poll() is not None]:
            self._running.pop(child)(child.returncode)

    def _read_lines(self, child: "subprocess.Popen[bytes]", lines: "_Lines") -> None:
        if not lines.read() and child.stdout is not None:
            self._selector.unregister(child.stdout)
            child.stdout.close()


class _Lines:
    """The whole lines out of a pipe."""

    def __init__(self, descriptor: int, on_line: Callable[[str], None]) -> None:
        self._descriptor = descriptor
        self._on_line = on_line
        self._rest = b""

    def read(self) -> bool:
        """Read what is there; False at the end."""
        with contextlib.suppress(OSError):
            data = os.read(self._descriptor, 1 << 16)
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                self._on_line(line.decode(errors="replace"))
            return bool(data)
        return False

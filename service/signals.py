"""Signals as input: every wait of the main thread includes them, so that none is lost; and their meaning.

Theory of operation
    Python runs a handler between two steps of the main thread. A main thread that waits in a lock or for a child is
    woken by most signals and not by all: a signal that comes just before the wait begins, or that the kernel hands to
    another thread because the main one has not handled the last one yet, is handled only at the next event, which may
    never come. So no serving process here waits that way. The interpreter writes the number of each signal to a socket,
    and the process waits for that socket too (`SignalInbox`; a loop of asyncio does the same).

    A child gets signals from its parent as soon as it exists, and listens to them a second later. It is started with
    signals blocked, so that they stay pending, and unblocks them when it listens (`blocked`, `let_in`).

    SIGTERM, SIGINT and SIGHUP have the same meaning, and one request may come as several of them: a terminal or
    `timeout` signals a whole group of processes, systemd every process of a service, and a parent its children. So a
    signal within a second of the first one is the same request (`StopRequests`, docs/adr/0086). That holds to the end
    of the process: an idle server has drained within milliseconds, and takes longer to unload its libraries. Python
    runs no handler then, and the kernel would end it by the second half of the same request (`ignore_rest`).
"""

import asyncio
import contextlib
import enum
import signal
import socket
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from forebay_server.service.clock import Clock

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
LOG_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)
_ALL = STOP_SIGNALS + LOG_SIGNALS
ONE_REQUEST_NS = 1_000_000_000


class StopRequest(enum.Enum):
    """The meaning of a signal of `STOP_SIGNALS`."""

    DRAIN = enum.auto()
    NOTHING_NEW = enum.auto()
    END_AT_ONCE = enum.auto()


class StopRequests:
    """Distinguishes requests to stop: the first drains, a later one ends the process at once.

    Args:
        clock: source of monotonic nanoseconds.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._first_ns: int | None = None

    def take(self) -> StopRequest:
        """Return the meaning of the signal that has just come."""
        now_ns = self._clock.now_ns()
        if self._first_ns is None:
            self._first_ns = now_ns
            return StopRequest.DRAIN
        return StopRequest.NOTHING_NEW if now_ns - self._first_ns < ONE_REQUEST_NS else StopRequest.END_AT_ONCE

    def ignore_rest(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Ignore signals from now on, because only the end of the process is left. Thread: main.

        If more than a second has passed since the stop request, or there was none, a signal still ends the process.

        Args:
            loop: that listens to them, if one does.
        """
        is_asked = self._first_ns is not None and self._clock.now_ns() - self._first_ns < ONE_REQUEST_NS
        for number in _ALL if is_asked else LOG_SIGNALS:
            if loop is not None:
                loop.remove_signal_handler(number)  # its end would give the signal back to the kernel
            signal.signal(number, signal.SIG_IGN)


class SignalInbox:
    """A file descriptor on which signals arrive. While it is open, nothing else handles them. Thread: main.

    Signals that were ignored meanwhile stay so when it is left.

    SIGCHLD is among them, so that the end of a child wakes the waiting thread.
    """

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.settimeout(0)
        self._writer.settimeout(0)

    def __enter__(self) -> Self:
        self._old_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._old = [(number, signal.signal(number, _nothing)) for number in (*_wanted(), signal.SIGCHLD)]
        let_in()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._old:
            if signal.getsignal(number) is _nothing:
                signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_fd)
        self._reader.close()
        self._writer.close()

    def fileno(self) -> int:
        """Return the descriptor for a selector: readable when a signal has come."""
        return self._reader.fileno()

    def read(self) -> list[int]:
        """Return the signals that have come, in order."""
        with contextlib.suppress(BlockingIOError):
            return list(self._reader.recv(1 << 16))
        return []


def _nothing(*_: object) -> None:
    """Do nothing: the signal's number is in the inbox."""


def listen(loop: asyncio.AbstractEventLoop, stop: Callable[[int], None], tell: Callable[[int], None]) -> None:
    """On a loop, call `stop` for signals that end a server, `tell` for the others. Thread: main, the loop's."""
    for number in _wanted():
        loop.add_signal_handler(number, stop if number in STOP_SIGNALS else tell, number)
    let_in()


def _wanted() -> list[signal.Signals]:
    """Return the signals to listen to. Under `nohup` SIGHUP is ignored."""
    is_hangup_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in _ALL if not (number == signal.SIGHUP and is_hangup_ignored)]


@contextlib.contextmanager
def blocked() -> Iterator[None]:
    """Start children within the block with their signals blocked until `let_in`.

    This process's wait until the block's end.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ALL)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_in() -> None:
    """Unblock the signals that have been pending since this process was started."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ALL)

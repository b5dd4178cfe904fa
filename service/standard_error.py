"""The one writer of standard error in a process that serves: putting a line never blocks and never raises.

Theory of operation
    The reader of standard error may be slow, or gone; the disk behind it may be full. None of this may block a thread
    of the data path. So `put` appends to a queue of bounded bytes and returns, and one thread takes lines off and
    writes them. Only that thread ever waits for a reader.

    A line that does not fit in the queue, or cannot be written, is dropped and counted. The writer keeps no error
    state: it tries to write every line, because a reader may come back and a disk may get space. Before the first line
    that it can write again it puts a line with the number of missing ones.

    The thread starts with the first line. It is a daemon: a process whose reader takes nothing still ends, after
    `close` has waited for a bounded time.

Guarantees: lines are written whole and in the order in which they were put; `put` may be called from signal handlers
and finalizers, and after `close`.
"""

import atexit
import os
import queue
import select
import threading
from collections.abc import Callable

MAX_WAITING_BYTES = 1 << 20  # some thousand lines: minutes of a busy server, and a bound on its memory
EXIT_TIMEOUT_S = 1.0  # for lines that still wait when the process ends
LAST_WORDS_TIMEOUT_S = 0.25  # for waiting lines, where the process has to end at once
_NON_BLOCKING_WAIT_MS = 1_000  # for a descriptor that another process made non-blocking

_Lines = queue.SimpleQueue[bytes | None]
"""The queue of one writing thread; None ends the thread. Its `put` may interrupt itself, unlike that of a Channel."""


class LineWriter:
    """See the module's theory of operation. Thread: any.

    Args:
        descriptor: to write to; stays open as long as the process lives.
        max_waiting_bytes: lines that exceed it together are dropped.
    """

    def __init__(self, descriptor: int, max_waiting_bytes: int = MAX_WAITING_BYTES) -> None:
        self.words_for_losses: Callable[[int], str] = _words_for_losses
        self._descriptor = descriptor
        self._max_waiting_bytes = max_waiting_bytes
        self._is_torn = False  # the last line was written in part; writer's thread only
        self._told = 0  # reported of the dropped lines; guarded by the lock
        self._dropped = 0
        self._forget()

    def _forget(self) -> None:
        """Start over after a fork: the writing thread and its queue belong to the parent."""
        self._lock = threading.RLock()  # guards all below; a signal handler may put while its own thread does
        self._thread: threading.Thread | None = None
        self._is_starting = False
        self._lines: _Lines = queue.SimpleQueue()
        self._waiting_bytes = 0

    def write_to(self, descriptor: int) -> None:
        """Write to another descriptor from the next line on."""
        self._descriptor = descriptor

    @property
    def dropped(self) -> int:
        """Lines that did not fit or could not be written."""
        return self._dropped

    def put(self, line: str) -> None:
        """Write a line, without its end, as soon as possible, or count it as dropped. Blocks: no. Raises nothing."""
        try:
            data = (line + "\n").encode(errors="backslashreplace")
            with self._lock:
                if self._waiting_bytes + len(data) > self._max_waiting_bytes:
                    self._dropped += 1
                    return
                self._start()
                self._waiting_bytes += len(data)
                self._lines.put(data)
        except Exception:  # noqa: BLE001 - no memory, or no thread: a later line may succeed
            with self._lock:
                self._dropped += 1

    def close(self, timeout_s: float) -> bool:
        """Write the waiting lines and end the thread; return whether it has ended. Blocks: for `timeout_s` at most."""
        with self._lock:
            thread, lines = self._thread, self._lines
            if thread is None:
                return True
            self._waiting_bytes = 0
            self._lines = queue.SimpleQueue()  # a thread that is stuck keeps the old queue
            self._thread = None  # last: a signal handler that puts meanwhile must not start one with the old lines
            lines.put(None)
        thread.join(timeout_s)
        return not thread.is_alive()

    def _start(self) -> None:
        if self._is_starting:  # a signal handler has interrupted its own thread below
            return
        self._is_starting = True
        try:
            if self._thread is None:  # looked at only now: a handler may have started it before the line above
                thread = threading.Thread(target=self._run, args=(self._lines,), name="log writer", daemon=True)
                thread.start()
                self._thread = thread
        finally:
            self._is_starting = False

    def _run(self, lines: _Lines) -> None:
        while (data := lines.get()) is not None:
            is_written = self._tell_losses() and self._write(data)
            with self._lock:
                self._dropped += not is_written
                if lines is self._lines:  # otherwise `close` has started a new queue
                    self._waiting_bytes -= len(data)
        self._tell_losses()

    def _tell_losses(self) -> bool:
        """Write the number of missing lines, if some are; return False if that cannot be written."""
        with self._lock:  # an abandoned thread may report them, too
            losses = self._dropped - self._told
            self._told += losses
        if not losses or self._write((self.words_for_losses(losses) + "\n").encode(errors="backslashreplace")):
            return True
        with self._lock:
            self._told -= losses
        return False

    def _write(self, data: bytes) -> bool:
        """Write a line; return False if it cannot be written whole. Blocks: while the reader takes nothing."""
        rest = memoryview(b"\n" + data if self._is_torn else data)
        while rest:
            try:
                written = os.write(self._descriptor, rest)
            except BlockingIOError:
                if not self._wait_until_writable():
                    return False
                continue
            except OSError:
                return False
            self._is_torn = True
            rest = rest[written:]
        self._is_torn = False
        return True

    def _wait_until_writable(self) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        return bool(poll.poll(_NON_BLOCKING_WAIT_MS))


def _words_for_losses(count: int) -> str:
    return f"forebay: {count} lines are missing here: standard error took no more"


STANDARD_ERROR = LineWriter(2)
os.register_at_fork(after_in_child=STANDARD_ERROR._forget)  # noqa: SLF001 - of this module
atexit.register(STANDARD_ERROR.close, EXIT_TIMEOUT_S)


def say(line: str) -> None:
    """Write one line for the operator to standard error. Blocks: no. Raises nothing. Thread: any."""
    STANDARD_ERROR.put(f"forebay: {line}")

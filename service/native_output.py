"""Turns output of C and C++ libraries to standard error into log events; no thread waits for its reader.

Theory of operation
    gRPC, ONNX Runtime and others write to descriptor 2 on any thread, including those that serve every stream. A client
    can make gRPC print (a malformed header is an error in its log), and with a slow reader of standard error such a
    thread would wait. So descriptor 2 becomes the end of a pipe, and one thread here empties the pipe; only
    service.standard_error writes to standard error itself.

    That thread needs the interpreter's lock, which a printing thread may hold: if the pipe were full, both would wait
    for ever. So the pipe does not block, and output that does not fit is lost.

    At most `MAX_LINES` lines a window become events. Only the number of the others is logged, so
    that a client that makes a library print costs no more than counting, which takes some GB/s.

    A crash leaves its last output in the pipe. So Python's faulthandler, which needs no thread, writes the stacks of
    all threads to standard error itself, through a descriptor that never blocks.
"""

import atexit
import contextlib
import faulthandler
import fcntl
import os
import stat
import threading

import structlog

from forebay_server.service.clock import Clock
from forebay_server.service.log import MAX_VALUE_CHARACTERS
from forebay_server.service.standard_error import EXIT_TIMEOUT_S, STANDARD_ERROR

log = structlog.get_logger(__name__)

MAX_LINES = 20
WINDOW_NS = 1_000_000_000
_PIPE_BYTES = 1 << 20  # the largest size that Linux allows every user
_READ_BYTES = 1 << 16


def take_descriptor(clock: Clock) -> None:
    """Log all later output to descriptor 2. Thread: main, once, after `configure_logs`."""
    try:
        real = os.dup(2)
        source, sink = os.pipe()
    except OSError as error:  # no descriptors left: the output of libraries is not taken over
        log.warning("the output of libraries is not taken over", error=error.strerror)
        return
    os.set_blocking(sink, False)
    with contextlib.suppress(OSError):  # this user's pipes have reached their limit: the pipe stays at 64 KiB
        fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    os.dup2(sink, 2)
    os.close(sink)
    STANDARD_ERROR.write_to(real)
    _tell_crashes(real)
    reader = threading.Thread(target=_read, args=(source, LineLimit(clock)), name="native output", daemon=True)
    reader.start()
    atexit.register(_give_back, real, reader)


def _give_back(real: int, reader: threading.Thread) -> None:
    """Restore descriptor 2, and log the output so far. Blocks: for `EXIT_TIMEOUT_S` at most."""
    os.dup2(real, 2)  # the last end of the pipe in this process; children may have others
    reader.join(EXIT_TIMEOUT_S)


def _tell_crashes(real: int) -> None:
    try:
        flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY
        faulthandler.enable(os.open(f"/proc/self/fd/{real}", flags))
    except OSError:
        # A crash must not wait for a reader, so rather lose its output. A file never makes it wait.
        if stat.S_ISREG(os.fstat(real).st_mode):
            faulthandler.enable(real)


class LineLimit:
    """Chooses the lines that become events. Thread: one.

    Args:
        clock: source of monotonic nanoseconds; tests pass a manual one.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._window_ns = clock.now_ns()
        self._logged = 0
        self.left_out = 0
        self._begun = b""

    def take(self, data: bytes) -> list[str]:
        """Return the lines that `data` completes and that may be logged; count the others in `left_out`."""
        now_ns = self._clock.now_ns()
        if now_ns - self._window_ns >= WINDOW_NS:
            self._window_ns, self._logged = now_ns, 0
        lines: list[bytes] = []
        while self._logged < MAX_LINES and b"\n" in data:
            line, _, data = data.partition(b"\n")
            lines.append(self._begun + line)
            self._begun = b""
            self._logged += 1
        if b"\n" in data:
            self.left_out += data.count(b"\n")
            self._begun, data = b"", data.rpartition(b"\n")[2]
        self._begun = (self._begun + data)[:MAX_VALUE_CHARACTERS]
        return [line.decode(errors="replace") for line in lines if line.strip()]

    def take_left_out(self) -> int:
        """Return how many lines were left out since the last call, if some may be logged again; else 0."""
        if self._logged >= MAX_LINES:
            return 0
        count, self.left_out = self.left_out, 0
        return count


def _read(source: int, limit: LineLimit) -> None:
    with contextlib.suppress(OSError):
        while data := os.read(source, _READ_BYTES):
            for line in limit.take(data):
                log.warning("a library prints", detail=line)
            if left_out := limit.take_left_out():
                log.warning("a library printed more", lines_left_out=left_out)
    os.close(source)

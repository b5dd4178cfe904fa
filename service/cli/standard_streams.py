"""Standard output and error of a command: what cannot be written ends it in words, with a code, never in a traceback.

Standard output that cannot be written is the command's failure: one line and CANNOT_WRITE; if its reader has gone, as
`head` does, nothing is said, as with other tools. Standard error that cannot be written is nobody's failure: there is
nowhere to say so, and the exit code tells the rest.
"""

import errno
import io
import os
import sys
from typing import TextIO

from forebay_server.service.cli import exit_codes


class OutputError(Exception):
    """Standard output cannot be written. No OSError, which a library on the way would take for one of its own.

    Attributes:
        reason: `errno`.
    """

    def __init__(self, reason: int) -> None:
        super().__init__(f"cannot write to standard output: {os.strerror(reason)}")
        self.reason = reason


def open_standard_streams() -> None:
    """Give this process the three standard descriptors and streams. Call it before anything opens a file.

    A descriptor that is closed would be given to the next file or socket that is opened, and a library that prints
    would write into a client's connection. So it gets one that cannot be used either: as closed as before, but taken
    (the same is done by `stdopen` of gnulib).
    """
    for descriptor, useless in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, useless)  # takes the lowest number that is free: this one
            os.set_inheritable(descriptor, True)  # noqa: FBT003 - by position only
    sys.stdout = _text(_Output(1, "w", closefd=False), sys.stdout)
    sys.stderr = _text(_ErrorOutput(2, "w", closefd=False), sys.stderr)


def _text(raw: io.FileIO, old: TextIO | None) -> io.TextIOWrapper:
    # A line at a time: a command that lives long is read while it runs.
    encoding = None if old is None else old.encoding
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=True)


class _Output(io.FileIO):
    def write(self, data: bytes) -> int:  # type: ignore[override]  # any buffer
        try:
            return super().write(data) or 0
        except OSError as error:
            raise OutputError(error.errno or errno.EIO) from None


class _ErrorOutput(io.FileIO):
    def write(self, data: bytes) -> int:  # type: ignore[override]  # any buffer
        try:
            return super().write(data) or 0
        except OSError:
            return len(data)


def end_of_output(error: OutputError) -> int:
    """Say what is to be said of output that cannot be written, and return the exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still in buffers goes nowhere, without another error
    if error.reason == errno.EPIPE:
        return exit_codes.NO_READER
    sys.stderr.write(f"forebay: {error}\n")
    return exit_codes.CANNOT_WRITE

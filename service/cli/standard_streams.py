"""Standard output and error of a command: a write failure ends the command with a line and a code, never a traceback.

Standard output that cannot be written is a failure of the command: one line and CANNOT_WRITE. If its reader has gone,
as with `head`, no line is printed, as with other tools. Standard error that cannot be written is no failure: there is
no place for a message, and the exit code still reports the result.
"""

import errno
import io
import os
import sys
from typing import TextIO

from forebay_server.service.cli import exit_codes


class OutputError(Exception):
    """Standard output cannot be written. Not an OSError, which a library between would take for one of its own.

    Attributes:
        reason: `errno`.
    """

    def __init__(self, reason: int) -> None:
        super().__init__(f"cannot write to standard output: {os.strerror(reason)}")
        self.reason = reason


def open_standard_streams() -> None:
    """Give this process the three standard descriptors and streams. Call it before anything opens a file.

    A closed descriptor would be given to the next file or socket that is opened, and a library that prints would write
    into a client's connection. So this function fills a closed descriptor with an unusable one: as closed as before,
    but taken (`stdopen` of gnulib does the same).
    """
    for descriptor, useless in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, useless)  # takes the lowest free number: this one
            os.set_inheritable(descriptor, True)  # noqa: FBT003 - by position only
    sys.stdout = _text(_Output(1, "w", closefd=False), sys.stdout)
    sys.stderr = _text(_ErrorOutput(2, "w", closefd=False), sys.stderr)


def _text(raw: io.FileIO, old: TextIO | None) -> io.TextIOWrapper:
    # Flush line by line: the output of a long-running command is read while it runs.
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
    """Print the line for output that cannot be written, and return the exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # discard the buffered rest without another error
    if error.reason == errno.EPIPE:
        return exit_codes.NO_READER
    sys.stderr.write(f"forebay: {error}\n")
    return exit_codes.CANNOT_WRITE

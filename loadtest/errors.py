"""Errors of a load test, each with the exit code that it ends in."""

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """Exit codes of `forebay load`; part of the command's contract."""

    OK = 0
    USAGE = 2
    SLO_MISSED = 3
    INVALID = 4
    CANNOT_CONNECT = 5
    CANNOT_WRITE = 73  # as for every command of forebay
    INTERRUPTED = 130  # so is this: Ctrl-C before there was an answer


class LoadTestError(Exception):
    """Base of all errors of the load generator; its text is meant for the user."""

    exit_code: ClassVar[ExitCode]

    def __init__(self, message: str) -> None:
        if type(self) is LoadTestError:
            raise TypeError("LoadTestError is abstract: raise one of its subclasses")
        super().__init__(message)


class UsageError(LoadTestError):
    """The user's options are invalid; the text says what to change."""

    exit_code = ExitCode.USAGE


class CannotConnectError(LoadTestError):
    """No stream could be opened: no server listens, or it does not speak the protocol."""

    exit_code = ExitCode.CANNOT_CONNECT


class CannotWriteError(LoadTestError):
    """A report cannot be written; the text names the file."""

    exit_code = ExitCode.CANNOT_WRITE


class InvalidRunError(LoadTestError):
    """The generator itself failed, so there is nothing to report about the server."""

    exit_code = ExitCode.INVALID


class StreamBrokenError(Exception):
    """One stream ended with an error; its unanswered frames are lost, and the run goes on."""


class GarbageError(Exception):
    """One message of the server could not be parsed; the stream goes on."""

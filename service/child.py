"""`forebay serve` as a child process of this one, for those that watch over servers.

The child writes to this process's standard error. If this process is killed, the kernel ends the child with SIGTERM.
Signals that come to this process are for its children: some end them, some change what they log.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO

_PR_SET_PDEATHSIG = 1  # from linux/prctl.h
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_LOG_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)  # as in service.server


def child_of(arguments: Sequence[str], environment: Mapping[str, str]) -> Callable[..., "subprocess.Popen[str]"]:
    """Return what starts `forebay` with `arguments`. Thread: main, and no other may run when the child is started.

    The function's one argument, `stdout`, is as Popen's: None is this process's own.
    """
    # -P and the path: the child runs this code, not a folder called `service` in the working directory.
    command = [sys.executable, "-P", "-m", "service", *arguments]
    paths = [str(Path(__file__).parent.parent), *filter(None, [environment.get("PYTHONPATH")])]
    environment = {**environment, "PYTHONPATH": os.pathsep.join(paths)}
    prctl = getattr(ctypes.CDLL(None), "prctl", None)  # looked up here: the child may do next to nothing before exec

    def begin() -> None:
        for number in _LOG_SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # until the child listens to them they would end it
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    def start(stdout: int | IO[str] | None = None) -> "subprocess.Popen[str]":
        # A group of its own: Ctrl-C is for this process, which passes it on once; twice would end the child at once.
        return subprocess.Popen(  # noqa: S603 - our own command
            command,
            process_group=0,
            preexec_fn=begin,  # noqa: PLW1509 - no other thread runs here
            env=environment,
            stdout=stdout,
            text=True,
        )

    return start


@contextlib.contextmanager
def signals_to(stop: Callable[[int], None], tell: Callable[[int], None]) -> Iterator[None]:
    """Within the block call `stop` for signals that end servers, `tell` for those that do not. Thread: main."""

    def handle(number: int, _: FrameType | None) -> None:
        (stop if number in _STOP_SIGNALS else tell)(number)

    old = [(number, signal.signal(number, handle)) for number in _STOP_SIGNALS + _LOG_SIGNALS]
    try:
        yield
    finally:
        for number, handler in old:
            signal.signal(number, handler)


def say(line: str) -> None:
    """Write one line for the operator."""
    sys.stderr.write(f"forebay: {line}\n")
    sys.stderr.flush()


def how_it_ended(code: int) -> str:
    """Return words for a child's exit code, or for minus the signal that ended it."""
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def exit_code_of(code: int) -> int:
    """Return an exit code for this process that says the same as its child's."""
    return 128 - code if code < 0 else code

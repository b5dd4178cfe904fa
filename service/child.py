"""`forebay serve` as a child process of this one, for those that watch over servers.

The child writes to this process's standard error. If this process is killed, the kernel ends the child with SIGTERM.
Signals that come before the child listens to them wait for it (service.signals).
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

import forebay_server
from forebay_server.service.signals import blocked

_PR_SET_PDEATHSIG = 1  # from linux/prctl.h


def child_of(arguments: Sequence[str], environment: Mapping[str, str]) -> Callable[..., "subprocess.Popen[bytes]"]:
    """Return what starts `forebay` with `arguments`. Thread: main.

    When the child is started no other thread may run but those of service.standard_error and service.ready: they wait
    in the kernel, or for the interpreter's lock, and hold nothing that the child needs before exec.

    The function's one argument, `stdout`, is as Popen's: None is this process's own.
    """
    # -P and the path: the child runs this code, not a folder of that name in the working directory.
    command = [sys.executable, "-P", "-m", "forebay_server.service", *arguments]
    paths = [str(Path(forebay_server.__file__).parent.parent), *filter(None, [environment.get("PYTHONPATH")])]
    environment = {**environment, "PYTHONPATH": os.pathsep.join(paths)}
    begin = ends_with_its_parent()

    def start(stdout: int | IO[bytes] | None = None) -> "subprocess.Popen[bytes]":
        # A group of its own: Ctrl-C is for this process, which passes it on.
        with blocked():
            return subprocess.Popen(  # noqa: S603 - our own command
                command,
                process_group=0,
                preexec_fn=begin,  # noqa: PLW1509 - see above for the threads that run here
                env=environment,
                stdout=stdout,
            )

    return start


def ends_with_its_parent() -> Callable[[], None]:
    """Return what a child calls before it becomes another program: the kernel will end it with SIGTERM after us.

    Thread: main, for the kernel takes the end of the thread that starts a child for the end of its parent.
    """
    parent = os.getpid()
    prctl = getattr(ctypes.CDLL(None), "prctl", None)  # looked up here: the child may do next to nothing before exec

    def begin() -> None:
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it was killed before the kernel knew
            os._exit(1)

    return begin


def how_it_ended(code: int) -> str:
    """Return words for a child's exit code, or for minus the signal that ended it."""
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def exit_code_of(code: int) -> int:
    """Return an exit code for this process that says the same as its child's."""
    return 128 - code if code < 0 else code

"""`forebay serve` as a child process of this one, for processes that watch over servers.

The child writes to this process's standard error. If this process is killed, the kernel ends the child with SIGTERM.
Signals that come before the child listens stay pending (service.signals).
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
    """Return a function that starts `forebay` with `arguments`. Thread: main.

    The function's one argument, `stdout`, is as Popen's: None is this process's own.
    """
    command = command_of_child(arguments)

    def start(stdout: int | IO[bytes] | None = None) -> "subprocess.Popen[bytes]":
        return start_child(command, environment, stdout)

    return start


def start_child(
    command: Sequence[str],
    environment: Mapping[str, str],
    stdout: int | IO[bytes] | None = None,
    descriptors: Sequence[int] = (),
) -> "subprocess.Popen[bytes]":
    """Start a command of this project as a child of this process. Thread: main.

    Args:
        command: the interpreter and its arguments; ends with its parent by `bind_to_parent`.
        environment: of the child; the path of this code is added, so that it runs this code, wherever it starts.
        stdout: as Popen's.
        descriptors: that the child has under the same numbers.
    """
    paths = [str(Path(forebay_server.__file__).parent.parent), *filter(None, [environment.get("PYTHONPATH")])]
    # A process group of its own: Ctrl-C goes to this process, which passes it on.
    with blocked():
        return subprocess.Popen(  # noqa: S603 - a command of this project
            command,
            process_group=0,
            env={**environment, "PYTHONPATH": os.pathsep.join(paths)},
            stdout=stdout,
            pass_fds=descriptors,
        )


def command_of_child(arguments: Sequence[str]) -> list[str]:
    """Return the command that runs `forebay` with `arguments` as a child of this process (service.cli.as_child).

    The code that ties the child to this process runs in the child after exec, not in a `preexec_fn`: that makes Python
    fork, and gRPC's fork handlers, run beside its threads, may crash or hang the child before exec.
    """
    # -P: a user's folder called service or models must not shadow this package.
    return [sys.executable, "-P", "-m", "forebay_server.service.cli.as_child", str(os.getpid()), *arguments]


def bind_to_parent(parent_pid: int, number: int) -> None:
    """Let the kernel send this process the signal `number` when its parent has ended; exit if that is so already.

    For the kernel, the parent ends with the thread that started this process. Thread: main.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent_pid:  # the parent was killed before the call above
        os._exit(1)


def how_it_ended(code: int) -> str:
    """Describe a child's exit code, or minus the signal that ended it."""
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def exit_code_of(code: int) -> int:
    """Return an exit code for this process with the same meaning as its child's."""
    return 128 - code if code < 0 else code

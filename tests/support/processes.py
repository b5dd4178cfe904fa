"""Which child processes a test has left behind."""

import contextlib
from pathlib import Path

import psutil

# The standard library keeps one helper process for shared memory until the interpreter ends.
PERSISTENT = "multiprocessing.resource_tracker"


def child_pids() -> set[int]:
    """Return the pids of this process's children, zombies included."""
    tasks = Path("/proc/self/task")
    try:
        return {int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()}
    except OSError:  # not Linux, or a thread that ended meanwhile
        return {child.pid for child in psutil.Process().children()}


def leaked_processes(before: set[int], grace_s: float = 2.0) -> list[str]:
    """Return `pid command` of children that were not in `before`, after up to `grace_s` seconds; they are killed.

    A child that has ended but was never waited for counts too.
    """
    new = child_pids() - before
    if not new:
        return []
    leaked = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.pid in new and PERSISTENT not in (command := _command(child)):
                if child.status() != psutil.STATUS_ZOMBIE:
                    with contextlib.suppress(psutil.TimeoutExpired):
                        child.wait(grace_s)
                        continue
                child.kill()
                child.wait(grace_s)
                leaked.append(f"{child.pid} {command}")
    return leaked


def _command(child: psutil.Process) -> str:
    with contextlib.suppress(psutil.ZombieProcess):
        return " ".join(child.cmdline()) or child.name()
    return "(ended, not waited for)"

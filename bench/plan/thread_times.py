"""CPU time of a server's threads, by kind. Read from outside, from the kernel's account.

Source: proc_pid_schedstat in the kernel's Documentation/scheduler/sched-stats.rst; names from `service.thread_name`.
"""

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import psutil

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class ThreadTimes:
    """Nanoseconds of CPU: event loops, gRPC's and other native threads, workers, execution, a model's other threads."""

    loop_ns: int = 0
    transport_ns: int = 0
    workers_ns: int = 0
    engine_ns: int = 0
    stages_ns: int = 0

    def since(self, earlier: "ThreadTimes") -> "ThreadTimes":
        """Return what was used from `earlier` on. A thread that has ended since counts as nothing."""
        return ThreadTimes(*(max(0, getattr(self, f.name) - getattr(earlier, f.name)) for f in fields(self)))

    @property
    def total_s(self) -> float:
        """Seconds of all threads."""
        return float(sum(getattr(self, f.name) for f in fields(self)) / 1e9)

    def less(self, other: "ThreadTimes", factor: float) -> "ThreadTimes":
        """Return these times without `factor` times the other ones."""
        return ThreadTimes(
            *(max(0, round(getattr(self, f.name) - factor * getattr(other, f.name))) for f in fields(self))
        )


def thread_times(pids: Iterable[int], proc: Path = PROC) -> ThreadTimes:
    """Return what all threads of the processes have used so far. A process that has ended counts as nothing."""
    sums = dict.fromkeys((f.name for f in fields(ThreadTimes)), 0)
    for pid in pids:
        for task in _tasks(proc / str(pid)):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
                used_ns = int((task / "schedstat").read_text().split()[0])
                is_main = task.name == str(pid)
                sums["loop_ns" if is_main else _kind((task / "comm").read_text().strip())] += used_ns
    return ThreadTimes(**sums)


def _tasks(process: Path) -> list[Path]:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return list((process / "task").iterdir())
    return []


def machine_busy_s() -> float:
    """Return the seconds that all cores of the machine have worked so far, or that its host has kept from it."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))


def own_busy_s() -> float:
    """Return the CPU seconds of this process and of those that it has started and waited for."""
    return float(sum(os.times()[:4]))


def _kind(name: str) -> str:
    if name.startswith("worker-"):
        return "workers_ns"
    if name.endswith(".execute"):
        return "engine_ns"
    if name.endswith((".former", ".h2d", ".d2h")) or name == "links":
        return "stages_ns"
    return "transport_ns"

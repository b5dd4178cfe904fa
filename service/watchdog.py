"""Finds an engine that hangs: a stage that has been at one batch for longer than any batch can take.

Python cannot end a thread that is stuck in a library, so the process is the unit that fails: the watchdog reports to
`on_fatal`, health turns NOT_SERVING, and the process exits with code 70 for a supervisor to start it anew.

A host with too little CPU for everybody is no hang: ending the process there would make things worse. The kernel says
how long each thread was ready to run and did not get to (schedstat). What the most unlucky thread of the process has
waited since the stage came under suspicion does not count. A thread that waits for a device or a lock is not ready.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from service.clock import Clock
from service.errors import DeviceLostError
from service.models.version import ModelVersion
from service.pipeline.stage import Stage

PAUSE_NS = 1_500_000_000  # no look for so long: the whole process stood still (a paused container), not an engine


SUSPICIOUS_NS = 200_000_000  # at one batch: from here on it is watched whether the process gets a CPU
TASKS = Path("/proc/self/task")


def waits_for_cpu_ns() -> dict[str, int]:
    """Return how long every thread of this process has been ready to run without running; empty if nobody counts."""
    waits = {}
    for task in TASKS.iterdir() if TASKS.is_dir() else ():
        try:
            waits[task.name] = int((task / "schedstat").read_text().split()[1])
        except (OSError, IndexError, ValueError):
            continue  # it has ended, or the kernel does not count
    return waits


@dataclass(frozen=True, slots=True)
class _Suspicion:
    """A stage that was at one batch for long, and what the threads of the process had waited by then."""

    busy_since_ns: int
    waits_ns: Mapping[str, int]


class Watchdog:
    """Looks at every lane of every version. Thread: the event loop's; it only reads.

    Args:
        versions: returns what serves now.
        clock: time.
        on_fatal: told once.
        read_waits: how long each thread has waited for a CPU.
    """

    def __init__(
        self,
        versions: Callable[[], Iterable[ModelVersion]],
        clock: Clock,
        on_fatal: Callable[[BaseException], None],
        read_waits: Callable[[], Mapping[str, int]] = waits_for_cpu_ns,
    ) -> None:
        self._versions = versions
        self._clock = clock
        self._on_fatal = on_fatal
        self._looked_ns = clock.now_ns()
        self._resumed_ns = 0
        self._read_waits = read_waits
        self._suspects: dict[str, _Suspicion] = {}  # by stage

    def look(self) -> None:
        """Report a stage that has been busy for longer than its version's limit. Call every half second or so."""
        now_ns = self._clock.now_ns()
        if now_ns - self._looked_ns > PAUSE_NS:
            self._resumed_ns = now_ns
        self._looked_ns = now_ns
        suspects: dict[str, _Suspicion] = {}
        for version in self._versions():
            for stage in (stage for lane in version.lanes for stage in lane.stages):
                suspect = self._suspect(stage, now_ns)
                if suspect is None:
                    continue
                suspects[stage.name] = suspect
                busy_ns = now_ns - max(suspect.busy_since_ns, self._resumed_ns)
                if busy_ns > version.hang_limit_ns and busy_ns - self._waited_ns(suspect) > version.hang_limit_ns:
                    self._on_fatal(DeviceLostError(f"{stage.name} has hung for {busy_ns / 1e9:.1f} s"))
                    return
        self._suspects = suspects

    def _suspect(self, stage: Stage, now_ns: int) -> _Suspicion | None:
        """Return what is held against a stage; None if it has not been at one batch for long."""
        busy_since_ns = stage.busy_since_ns
        if not busy_since_ns or now_ns - max(busy_since_ns, self._resumed_ns) < SUSPICIOUS_NS:
            return None
        suspect = self._suspects.get(stage.name)
        if suspect is None or suspect.busy_since_ns != busy_since_ns:
            return _Suspicion(busy_since_ns, self._read_waits())
        return suspect

    def _waited_ns(self, suspect: _Suspicion) -> int:
        """Return how long the process has waited for a CPU since then."""
        before = suspect.waits_ns
        return max((wait - before.get(task, wait) for task, wait in self._read_waits().items()), default=0)

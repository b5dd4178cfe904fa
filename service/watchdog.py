"""Detects an engine that hangs: a stage that has worked on one batch for longer than any batch can take.

It runs on a separate thread, because short batches run on the event loop (docs/adr/0120), which a hang then stops.

Python cannot end a thread that is stuck in a library, so the process is the unit that fails: the watchdog reports to
`on_fatal`, health turns NOT_SERVING, and the process exits with code 70 for a supervisor to restart it.

A host with too little CPU is not a hang: ending the process there would make things worse. The kernel reports how long
each thread was ready to run without running (schedstat). The longest such wait of any thread of the process, since the
stage came under suspicion, does not count: the thread that the stage waits for is unknown, and may belong to a library.
A thread that waits for a device or a lock is not ready. At `PATIENCE` times the limit a stage counts as hanging,
however long its threads have waited. Without the kernel's numbers all time counts.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from forebay_server.service.clock import Clock
from forebay_server.service.errors import DeviceLostError
from forebay_server.service.models.version import ModelVersion

log = structlog.get_logger(__name__)

# a longer pause between checks means that the whole process stood still (a paused container), not an engine
PAUSE_NS = 1_500_000_000
SUSPICIOUS_NS = 200_000_000  # on one batch: from then on the waits for a CPU are recorded
PATIENCE = 10  # a thread of low priority may wait for a CPU for ever
TASKS = Path("/proc/self/task")


def waits_for_cpu_ns(tasks: Path = TASKS) -> dict[str, int]:
    """Return how long each thread of this process was ready without running; empty if the kernel does not count.

    Raises OSError: it cannot be read now, because no file descriptor is left.
    """
    waits = {}
    for task in tasks.iterdir() if tasks.is_dir() else ():
        try:
            waits[task.name] = int((task / "schedstat").read_text().split()[1])
        except (FileNotFoundError, ProcessLookupError, IndexError, ValueError):
            continue  # the thread has ended, or the kernel does not count
    return waits


@dataclass(frozen=True, slots=True)
class _Suspicion:
    """A stage that has worked on one batch for long, and the threads' waits for a CPU at that time."""

    busy_since_ns: int
    waits_ns: Mapping[str, int]


class Watchdog:
    """Checks every lane of every version. Thread: one; it only reads.

    Args:
        versions: returns the versions that may execute a batch.
        clock: source of monotonic nanoseconds.
        on_fatal: called once.
        read_waits: returns how long each thread has waited for a CPU.
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
        self._has_failed = False
        self._suspects: dict[int, _Suspicion] = {}  # by stage, because an old and a new version share names

    def look(self) -> None:
        """Report a stage that has been busy for longer than its version's limit. Call it about every half second."""
        now_ns = self._clock.now_ns()
        if now_ns - self._looked_ns > PAUSE_NS:
            self._resumed_ns = now_ns
        self._looked_ns = now_ns
        busy = [
            (version, stage, since_ns)
            for version in self._versions()
            for lane in version.lanes
            for stage in lane.stages
            if (since_ns := stage.busy_since_ns) and now_ns - max(since_ns, self._resumed_ns) >= SUSPICIOUS_NS
        ]
        waits_ns = self._waits() if busy else {}
        suspects: dict[int, _Suspicion] = {}
        for version, stage, since_ns in busy:
            suspect = self._suspects.get(id(stage))
            if suspect is None or suspect.busy_since_ns != since_ns:
                suspect = _Suspicion(since_ns, waits_ns)
            suspects[id(stage)] = suspect
            busy_ns = now_ns - max(since_ns, self._resumed_ns)
            if max(busy_ns - _waited_ns(suspect.waits_ns, waits_ns), busy_ns // PATIENCE) > version.hang_limit_ns:
                self._on_fatal(DeviceLostError(f"{stage.name} has hung for {busy_ns / 1e9:.1f} s"))
                return
        self._suspects = suspects

    def _waits(self) -> Mapping[str, int]:
        try:
            return self._read_waits()
        except OSError as error:
            if not self._has_failed:  # log once: a line every half second would fill the disk
                log.warning("cannot tell a hang from too little CPU; all time counts", error=str(error))
            self._has_failed = True
            return {}


def _waited_ns(before: Mapping[str, int], now: Mapping[str, int]) -> int:
    """Return the longest wait of any thread for a CPU since then; new threads count from now."""
    return max((wait - before.get(task, wait) for task, wait in now.items()), default=0)


class WatchdogThread:
    """Runs a check at intervals until it is stopped.

    Args:
        look: `Watchdog.look`.
        interval_ns: between checks: the largest delay in noticing a hang.
        clock: source of monotonic nanoseconds.
        on_fatal: called if `look` raises, which is a bug: the service must not run with a dead thread.
    """

    def __init__(
        self, look: Callable[[], None], interval_ns: int, clock: Clock, on_fatal: Callable[[BaseException], None]
    ) -> None:
        self._look = look
        self._interval_ns = interval_ns
        self._clock = clock
        self._on_fatal = on_fatal
        self._changed = threading.Condition()
        self._is_stopped = False
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread. Idempotent. Blocks: for one check at most."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            while self._waited():
                self._look()
        except Exception as error:
            log.exception("the watchdog failed")
            self._on_fatal(error)

    def _waited(self) -> bool:
        """Wait for the next check; return whether there is one."""
        until_ns = self._clock.now_ns() + self._interval_ns
        with self._changed:
            while not self._is_stopped and self._clock.now_ns() < until_ns:
                self._clock.wait(self._changed, until_ns)
            return not self._is_stopped

"""Finds an engine that hangs: a stage that has been at one batch for longer than any batch can take.

Python cannot end a thread that is stuck in a library, so the process is the unit that fails: the watchdog reports to
`on_fatal`, health turns NOT_SERVING, and the process exits with code 70 for a supervisor to start it anew.
"""

from collections.abc import Callable, Iterable

from service.clock import Clock
from service.errors import DeviceLostError
from service.models.version import ModelVersion

PAUSE_NS = 1_500_000_000  # no look for so long: the whole process stood still (a paused container), not an engine


class Watchdog:
    """Looks at every lane of every version. Thread: the event loop's; it only reads.

    Args:
        versions: returns what serves now.
        clock: time.
        on_fatal: told once.
    """

    def __init__(
        self, versions: Callable[[], Iterable[ModelVersion]], clock: Clock, on_fatal: Callable[[BaseException], None]
    ) -> None:
        self._versions = versions
        self._clock = clock
        self._on_fatal = on_fatal
        self._looked_ns = clock.now_ns()
        self._resumed_ns = 0

    def look(self) -> None:
        """Report a stage that has been busy for longer than its version's limit. Call every half second or so."""
        now_ns = self._clock.now_ns()
        if now_ns - self._looked_ns > PAUSE_NS:
            self._resumed_ns = now_ns
        self._looked_ns = now_ns
        for version in self._versions():
            for lane in version.lanes:
                for stage in lane.stages:
                    since_ns = max(stage.busy_since_ns, self._resumed_ns)
                    if stage.busy_since_ns and now_ns - since_ns > version.hang_limit_ns:
                        seconds = (now_ns - since_ns) / 1e9
                        self._on_fatal(DeviceLostError(f"{stage.name} has hung for {seconds:.1f} s"))
                        return

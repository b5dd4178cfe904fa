"""`forebay serve --supervise`: runs the server as a child process and restarts it after a failure.

Failures are exit code 70 (an engine hangs, the device is lost, a bug) and death by a signal (the kernel's out-of-memory
killer, a crash in a library). Every other exit code is final, and becomes this process's: a restart does not mend a
wrong setting. More than `MAX_RESTARTS` within `WINDOW_S` end the supervisor, so that a repeated crash becomes visible.

The child writes to this process's standard output and error, so that a ready line comes once for every start. The
supervisor passes on a request to stop, and the child drains; it also passes on SIGUSR1 and SIGUSR2, which change the
child's log level. If the supervisor itself is killed, the kernel ends the child with SIGTERM.

Thread: the main thread, which waits for signals and for the child's end at once (service.parent).
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from forebay_server.service.child import child_of, exit_code_of, how_it_ended
from forebay_server.service.clock import Clock
from forebay_server.service.parent import END_LIMIT_NS, Parent, Signalled, Waiting
from forebay_server.service.standard_error import say

RESTART_CODE = 70  # EXIT_FATAL of service.server
GAVE_UP_CODE = 71  # GAVE_UP of service.cli.exit_codes
MAX_RESTARTS = 5
WINDOW_S = 60.0


class Supervisor(Parent):
    """Decides whether the child is started or restarted, and the exit code of this process. Owner: the main thread.

    Args:
        clock: source of monotonic nanoseconds, for the rate of restarts.
        say: writes one line for the operator.

    Attributes:
        exit_code: of this process, once it is known.
    """

    def __init__(self, clock: Clock, say: Callable[[str], None]) -> None:
        super().__init__(clock, 2 * END_LIMIT_NS)  # the child may be a parent itself, which kills its children first
        self._say = say
        self._child: Signalled | None = None
        self._restarts_ns: deque[int] = deque()
        self.exit_code: int | None = None

    @property
    def wants_child(self) -> bool:
        """Whether a child is to be started now."""
        return self._child is None and self.exit_code is None

    def add(self, child: Signalled) -> None:
        """Add the started child."""
        self._child = child

    def children(self) -> Iterable[Signalled]:
        """Return the child, if it runs."""
        return () if self._child is None else (self._child,)

    def on_end(self, code: int) -> None:
        """Record the end of the child, and decide whether to restart it."""
        self._child = None
        if self.is_stopping or (code >= 0 and code != RESTART_CODE):
            self.exit_code = exit_code_of(code)
            return
        how = how_it_ended(code)
        if self._may_restart():
            self._say(f"the server {how}; starting it anew ({len(self._restarts_ns)} of {MAX_RESTARTS} in a minute)")
            return
        self._say(
            f"the server {how}, after {MAX_RESTARTS} restarts within {WINDOW_S:g} s; it stays down. "
            f"Its log says why; `forebay doctor` looks for causes outside it"
        )
        self.exit_code = GAVE_UP_CODE

    def _may_restart(self) -> bool:
        now_ns = self._clock.now_ns()
        while self._restarts_ns and now_ns - self._restarts_ns[0] > WINDOW_S * 1e9:
            self._restarts_ns.popleft()
        if len(self._restarts_ns) == MAX_RESTARTS:
            return False
        self._restarts_ns.append(now_ns)
        return True


def supervise(arguments: Sequence[str], clock: Clock) -> int:
    """Run `forebay` with `arguments` under supervision, with this process's standard streams. Thread: main."""
    supervisor, start = Supervisor(clock, say), child_of(arguments, os.environ)
    with Waiting(supervisor.on_signal) as waiting:
        while supervisor.exit_code is None:
            if supervisor.wants_child:
                child = start()
                supervisor.add(child)
                waiting.add(child, supervisor.on_end)
            waiting.wait(supervisor.kill_in_s())
        supervisor.requests.ignore_rest()
    return supervisor.exit_code

"""`forebay serve --supervise`: runs the server as a child process and starts it anew when it failed for good.

What counts as failed: exit code 70 (an engine hangs, the device is lost, a bug of ours) and death by a signal (the
kernel's out-of-memory killer, a crash in a library). Every other exit code is the child's last word, and becomes this
process's: a wrong setting does not get better by trying again. More than `MAX_RESTARTS` within `WINDOW_S` end it: a
service that falls as fast as it stands up must be seen.

The child writes to this process's standard output and error, so that a ready line comes once for every start. SIGTERM
and SIGINT are passed on, and the child drains; so are SIGUSR1 and SIGUSR2, which change what it logs. If the supervisor
itself is killed, the kernel ends the child with SIGTERM.

Thread: the main thread; nothing else runs in this process.
"""

import os
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from service.child import child_of, exit_code_of, how_it_ended, say, signals_to
from service.clock import Clock

RESTART_CODE = 70  # as in service.server
GAVE_UP_CODE = 71
MAX_RESTARTS = 5
WINDOW_S = 60.0


class Child(Protocol):
    """The part of subprocess.Popen that a supervisor needs."""

    def wait(self) -> int:
        """Return the exit code, or minus the signal that ended it."""
        ...

    def send_signal(self, sig: int) -> None:
        """Send a signal, unless it has ended."""
        ...


class Supervisor:
    """See the module.

    Args:
        start: starts the child.
        clock: for the rate of restarts.
        say: writes one line for the operator.
    """

    def __init__(self, start: Callable[[], Child], clock: Clock, say: Callable[[str], None]) -> None:
        self._start = start
        self._clock = clock
        self._say = say
        self._child: Child | None = None
        self._stop_signal: int | None = None
        self._restarts_ns: deque[int] = deque()

    def run(self) -> int:
        """Supervise until the child is done, and return the exit code."""
        while True:
            self._child = self._start()
            if self._stop_signal is not None:  # it came while the child was being made
                self._child.send_signal(self._stop_signal)
            code = self._child.wait()
            if self._stop_signal is not None or (code >= 0 and code != RESTART_CODE):
                return exit_code_of(code)
            how = how_it_ended(code)
            if not self._may_restart():
                self._say(
                    f"the server {how}, after {MAX_RESTARTS} restarts within {WINDOW_S:g} s; it stays down. "
                    f"Its log says why; `forebay doctor` looks for causes outside it"
                )
                return GAVE_UP_CODE
            self._say(f"the server {how}; starting it anew ({len(self._restarts_ns)} of {MAX_RESTARTS} in a minute)")

    def stop(self, number: int) -> None:
        """Pass a signal on; the child's next end is the last. A signal handler."""
        self._stop_signal = number
        self.tell(number)

    def tell(self, number: int) -> None:
        """Pass a signal on that does not end the child. A signal handler."""
        if self._child is not None:
            self._child.send_signal(number)

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
    supervisor = Supervisor(child_of(arguments, os.environ), clock, say)
    with signals_to(supervisor.stop, supervisor.tell):
        return supervisor.run()

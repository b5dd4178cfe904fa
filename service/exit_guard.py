"""Ends a process that cannot go on, within a bounded time, even if threads hang.

Theory of operation
    A thread that is stuck in a library cannot be ended, and later calls into that library may get stuck as well: the
    event loop, the observer, the log. So an orderly end has `timeout_s`. After that a thread that was started in
    advance, for this alone, ends the process with its exit code. One second later the kernel ends it by SIGALRM, if
    even that thread did not run because the interpreter's lock is held. A supervisor treats both ends as a failure.
"""

import os
import signal
import threading

import structlog

from forebay_server.service.standard_error import LAST_WORDS_TIMEOUT_S, STANDARD_ERROR

log = structlog.get_logger(__name__)

ALARM_AFTER_S = 1.0  # after the time at which the thread ends the process


class ExitGuard:
    """See the module's theory of operation.

    Args:
        exit_code: of the process.
        timeout_s: from `arm` to the end.
    """

    def __init__(self, exit_code: int, timeout_s: float) -> None:
        self._exit_code = exit_code
        self._timeout_s = timeout_s
        self._armed = threading.Event()
        threading.Thread(target=self._run, name="exit guard", daemon=True).start()

    def arm(self) -> None:
        """End the process in time, unless it ends by itself. Idempotent: the first call counts. Thread: any."""
        if not self._armed.is_set():
            self._armed.set()
            signal.setitimer(signal.ITIMER_REAL, self._timeout_s + ALARM_AFTER_S)

    def _run(self) -> None:
        self._armed.wait()
        threading.Event().wait(self._timeout_s)
        log.error("the process did not end in order", after_s=self._timeout_s)
        STANDARD_ERROR.close(LAST_WORDS_TIMEOUT_S)
        os._exit(self._exit_code)

"""A thread that runs small jobs at intervals, beside the event loop: work that must go on while the loop is behind."""

import threading
import time
from collections.abc import Callable, Sequence

import structlog

log = structlog.get_logger(__name__)


Job = Callable[[], float]
"""Does a short job without waiting, and returns the number of seconds until its next run."""
AFTER_ERROR_S = 1.0


class Upkeep:
    """See the module. Args: jobs: the jobs."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs = jobs
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """End the thread. Waits for the running job."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        due_s = dict.fromkeys(self._jobs, 0.0)
        while not self._stop.is_set():
            for job in self._jobs:
                if due_s[job] <= time.monotonic():
                    due_s[job] = self._do(job) + time.monotonic()
            self._stop.wait(max(0.0, min(due_s.values()) - time.monotonic()))

    @staticmethod
    def _do(job: Job) -> float:
        try:
            return job()
        except Exception:
            log.exception("a job of the upkeep failed")  # the next run may succeed
            return AFTER_ERROR_S

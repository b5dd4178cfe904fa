"""A thread that does small jobs again and again, beside the event loop: what must go on while the loop is behind."""

import threading
import time
from collections.abc import Callable, Sequence

import structlog

log = structlog.get_logger(__name__)


Job = Callable[[], float]
"""Does something quick, never waits, and returns in how many seconds it is to run again."""
AFTER_ERROR_S = 1.0


class Upkeep:
    """See the module. Args: jobs: what it does."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs = jobs
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End. Waits for the job under way."""
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
            log.exception("a job of the upkeep failed")  # the next time it may not
            return AFTER_ERROR_S

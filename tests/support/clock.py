"""A clock that only the test moves."""

import threading

from tests.support.guard import HANG_GUARD_S


class ManualClock:
    """See engines.clock.Clock. `wait_for_sleeper` makes tests deterministic: time moves once a thread waits for it."""

    def __init__(self, start_ns: int = 1_000_000_000) -> None:
        self._now_ns = start_ns
        self._lock = threading.Condition()
        self._sleepers: list[tuple[int, threading.Condition]] = []

    def now_ns(self) -> int:
        with self._lock:
            return self._now_ns

    def wait(self, condition: threading.Condition, until_ns: int | None) -> None:
        if until_ns is None:
            if not condition.wait(HANG_GUARD_S):
                raise TimeoutError("no notification within the hang guard")
            return
        sleeper = (until_ns, condition)
        with self._lock:
            if until_ns <= self._now_ns:
                return
            self._sleepers.append(sleeper)
            self._lock.notify_all()
        try:
            if not condition.wait(HANG_GUARD_S):
                raise TimeoutError("time was not advanced within the hang guard")
        finally:
            with self._lock:
                self._sleepers.remove(sleeper)
                self._lock.notify_all()

    def sleep_until(self, until_ns: int) -> None:
        condition = threading.Condition()
        with condition:
            while self.now_ns() < until_ns:
                self.wait(condition, until_ns)

    def wait_for_sleeper(self, until_ns: int) -> None:
        """Block until some thread waits for exactly the time `until_ns`."""
        with self._lock:
            if not self._lock.wait_for(lambda: any(until == until_ns for until, _ in self._sleepers), HANG_GUARD_S):
                raise TimeoutError(f"no sleeper until {until_ns}: {self._sleepers}")

    def advance(self, ns: int) -> None:
        """Advance the time and wake all waiters whose time has passed."""
        with self._lock:
            self._now_ns += ns
            due = [condition for until, condition in self._sleepers if until <= self._now_ns]
        for condition in due:
            with condition:
                condition.notify_all()

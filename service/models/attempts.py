"""An attempt to load a model: its deadline, its cancellation, and the thread that opens the model meanwhile.

A hanging library keeps its thread for good: no thread can be ended from outside. So each opening has a thread of its
own. A caller waits for the result until the opening has ended, the deadline has passed, or the attempt is cancelled. An
opening whose caller has stopped waiting discards what it opened when it ends after all.

Thread: any; the attempt's condition guards it.
"""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from forebay_server.service.clock import Clock
from forebay_server.service.models.repository import RepositoryError

T = TypeVar("T")


class LoadAbandonedError(RepositoryError):
    """The load was given up: its time is up, or it was cancelled. The message is public."""


class Attempt:
    """The deadline and the cancellation of one load.

    Args:
        name: of the model.
        timeout_s: from `restart`, which each part of the load calls when it begins.
        clock: source of monotonic nanoseconds.
    """

    def __init__(self, name: str, timeout_s: float, clock: Clock) -> None:
        self.name = name
        self.clock = clock
        self.condition = threading.Condition()
        self.until_ns = 0
        self.timeout_s = timeout_s
        self._reason = ""

    def restart(self) -> None:
        """Restart the time limit. Raises LoadAbandonedError if the attempt was cancelled."""
        with self.condition:
            self.until_ns = self.clock.now_ns() + int(self.timeout_s * 1e9)
        self.check()

    def cancel(self, reason: str) -> None:
        """Cancel the attempt; `reason` is public. Idempotent: the first reason counts."""
        with self.condition:
            self._reason = self._reason or reason
            self.condition.notify_all()

    def check(self) -> None:
        """Raise LoadAbandonedError if the attempt was cancelled or its time is up."""
        if self._reason:
            raise LoadAbandonedError(f"{self.name}: {self._reason}")
        if self.clock.now_ns() >= self.until_ns:
            raise LoadAbandonedError(
                f"{self.name}: not loaded within {self.timeout_s:g} s: look at what the model does when it is warmed "
                "up, or raise load_timeout_s"
            )


class Attempts:
    """All attempts that have begun and not ended, including those that wait for their turn. Thread: any; a lock.

    Args:
        timeout_s: of each part of a load.
        clock: source of monotonic nanoseconds.
    """

    def __init__(self, timeout_s: float, clock: Clock) -> None:
        self._timeout_s = timeout_s
        self._clock = clock
        self._lock = threading.Lock()
        self._attempts: list[Attempt] = []
        self._stop_reason = ""

    def begin(self, name: str) -> Attempt:
        """Return a new attempt; the caller ends it."""
        attempt = Attempt(name, self._timeout_s, self._clock)
        with self._lock:
            self._attempts.append(attempt)
            if self._stop_reason:
                attempt.cancel(self._stop_reason)
        return attempt

    def end(self, attempt: Attempt) -> None:
        """Remove an attempt."""
        with self._lock:
            self._attempts.remove(attempt)

    def cancel(self, name: str, reason: str) -> bool:
        """Cancel every attempt at a model; return whether there was one."""
        with self._lock:
            found = [attempt for attempt in self._attempts if attempt.name == name]
        for attempt in found:
            attempt.cancel(reason)
        return bool(found)

    def stop(self, reason: str) -> None:
        """Cancel every attempt, including later ones."""
        with self._lock:
            self._stop_reason = reason
            found = list(self._attempts)
        for attempt in found:
            attempt.cancel(reason)


class Opening(threading.Thread, Generic[T]):
    """Runs `work` on a thread of its own.

    Args:
        attempt: decides how long the result is wanted.
        work: opens a model.
        discard: closes the opened model, if the result is no longer wanted. Thread: this one.
    """

    def __init__(self, attempt: Attempt, work: Callable[[], T], discard: Callable[[T], None]) -> None:
        super().__init__(name=f"{attempt.name}.opening", daemon=True)
        self._attempt = attempt
        self._work = work
        self._discard = discard
        self._result: T | None = None
        self._error: BaseException | None = None
        self._is_done = False
        self._is_abandoned = False

    def wait(self) -> T:
        """Return the result of `work`, or raise its exception.

        Raises:
            LoadAbandonedError: the time is up, or the attempt was cancelled; the thread may go on for ever.
        """
        attempt = self._attempt
        with attempt.condition:
            while not self._is_done:
                try:
                    attempt.check()
                except LoadAbandonedError:
                    self._is_abandoned = True
                    raise
                attempt.clock.wait(attempt.condition, attempt.until_ns)
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]  # done without an error: the work's own result

    def run(self) -> None:
        """Run `work`, and hand its result over or discard it."""
        try:
            self._result = self._work()
        except BaseException as error:  # noqa: BLE001 - the waiting thread raises it
            self._error = error
        with self._attempt.condition:
            self._is_done = True
            self._attempt.condition.notify_all()
            is_wanted = not self._is_abandoned
        if not is_wanted and self._error is None:
            self._discard(self._result)  # type: ignore[arg-type]

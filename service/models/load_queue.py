"""Who loads and unloads when: work of one model in the order it was asked for, work of different models side by side.

Work that waits for earlier work of its model occupies no thread, so that however many loads of one model are asked for,
the others keep theirs.

Thread: any; a lock guards the lines.
"""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

SIDE_BY_SIDE = 4  # as Triton's --model-load-thread-count
MOST_WAITING = 256
"""Of all models together: each holds a configuration, and a client can ask for as many as it likes."""

T = TypeVar("T")


class QueueClosedError(Exception):
    """No more work is taken, or too much waits already; the message is public."""


class LoadQueue:
    """See the module."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: dict[str, deque[tuple[Future[Any], Callable[[], Any]]]] = {}
        self._pool = ThreadPoolExecutor(SIDE_BY_SIDE, "loader")
        self._is_closed = False

    def submit(self, name: str, work: Callable[[], T]) -> Future[T]:
        """Run `work` once all earlier work of the model `name` has ended. Raises QueueClosedError. Blocks: no."""
        future: Future[T] = Future()
        with self._lock:
            if self._is_closed:
                raise QueueClosedError("the server is shutting down")
            if sum(map(len, self._lines.values())) >= MOST_WAITING:
                raise QueueClosedError(f"{MOST_WAITING} loads wait already: try again later")
            line = self._lines.setdefault(name, deque())
            line.append((future, work))
            if len(line) == 1:
                self._pool.submit(self._run_first, name)
        return future

    def close(self) -> None:
        """Take no more work, and drop all that has not begun. Blocks: no."""
        with self._lock:
            self._is_closed = True
            waiting = [future for line in self._lines.values() for future, _ in list(line)[1:]]
            for line in self._lines.values():
                while len(line) > 1:
                    line.pop()
        for future in waiting:
            future.set_exception(QueueClosedError("the server is shutting down"))
        self._pool.shutdown(wait=False)

    def is_idle(self, name: str) -> bool:
        """Whether no work of the model is under way or waits."""
        return name not in self._lines

    def _run_first(self, name: str) -> None:
        future, work = self._lines[name][0]
        outcome: Any = None
        failure: BaseException | None = None
        try:
            outcome = work()
        except BaseException as error:  # noqa: BLE001 - whoever waits for it raises it
            failure = error
        with self._lock:
            line = self._lines[name]
            line.popleft()
            if line:
                self._pool.submit(self._run_first, name)
            else:
                del self._lines[name]
        if failure is None:
            future.set_result(outcome)
        else:
            future.set_exception(failure)

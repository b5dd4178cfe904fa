"""Order of loads and unloads: work on one model in the order of submission, work on different models side by side.

Work that waits for earlier work on its model occupies no thread, so any number of loads of one model leaves threads for
the others.

Thread: any; a lock guards the queues.
"""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

SIDE_BY_SIDE = 4  # as Triton's --model-load-thread-count
MOST_WAITING = 256
MOST_WAITING_BYTES = 256 << 20
"""Of all models together, work in progress included: a client can ask for loads at any rate, and each has a
configuration and perhaps files. A larger load is accepted when the queue is empty."""

T = TypeVar("T")


class QueueClosedError(Exception):
    """The queue takes no more work, or is full; the message is public."""


@dataclass(frozen=True, slots=True)
class _Work:
    """One piece of work: its function, its model, and the number of bytes that it holds until it runs."""

    future: Future[Any]
    run: Callable[[], Any]
    nbytes: int


class LoadQueue:
    """See the module. Its futures cannot be cancelled: a caller that stops waiting leaves the work alone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queues: dict[str, deque[_Work]] = {}
        self._pool = ThreadPoolExecutor(SIDE_BY_SIDE, "loader")
        self._is_closed = False

    def submit(self, name: str, run: Callable[[], T], nbytes: int = 0, *, is_bounded: bool = True) -> Future[T]:
        """Run a function once all earlier work on the model `name` has ended. Blocks: no.

        Args:
            name: of the model.
            run: the function.
            nbytes: bytes that the work holds.
            is_bounded: refuse the work if the queue is full; False where the folders on the disk bound its amount.

        Raises:
            QueueClosedError: the queue is closed, or full.
        """
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        with self._lock:
            if self._is_closed:
                raise QueueClosedError("the server is shutting down")
            if is_bounded:
                self._check_room(nbytes)
            queue = self._queues.setdefault(name, deque())
            queue.append(_Work(future, run, nbytes))
            if len(queue) == 1:
                self._pool.submit(self._run_first, name)
        return future

    def close(self, drop: Callable[[str], Exception]) -> None:
        """Refuse further work, and end all waiting work with the exception that `drop` makes for the model.

        Blocks: no.
        """
        dropped: list[tuple[str, _Work]] = []
        with self._lock:
            self._is_closed = True
            for name, queue in self._queues.items():
                while len(queue) > 1:
                    dropped.append((name, queue.pop()))
        for name, work in dropped:
            work.future.set_exception(drop(name))
        self._pool.shutdown(wait=False)

    def is_idle(self, name: str) -> bool:
        """Whether no work on the model runs or waits."""
        return name not in self._queues

    def _check_room(self, nbytes: int) -> None:
        held = [work.nbytes for queue in self._queues.values() for work in queue]
        if len(held) >= MOST_WAITING or (held and sum(held) + nbytes > MOST_WAITING_BYTES):
            raise QueueClosedError(f"{len(held)} loads wait already: try again later")

    def _run_first(self, name: str) -> None:
        work = self._queues[name][0]
        outcome: Any = None
        failure: BaseException | None = None
        try:
            outcome = work.run()
        except BaseException as error:  # noqa: BLE001 - the waiting thread raises it
            failure = error
        with self._lock:
            queue = self._queues[name]
            queue.popleft()
            if queue:
                self._pool.submit(self._run_first, name)
            else:
                del self._queues[name]
        if failure is None:
            work.future.set_result(outcome)
        else:
            work.future.set_exception(failure)

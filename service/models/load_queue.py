"""Who loads and unloads when: work of one model in the order it was asked for, work of different models side by side.

Work that waits for earlier work of its model occupies no thread, so that however many loads of one model are asked for,
the others keep theirs.

Thread: any; a lock guards the lines.
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
"""Of all models together, those at work included: a client can ask for loads as fast as it likes, and each brings a
configuration and perhaps files. One that is larger than this is taken when nothing else is there."""

T = TypeVar("T")


class QueueClosedError(Exception):
    """No more work is taken, or too much waits already; the message is public."""


@dataclass(frozen=True, slots=True)
class _Work:
    """What is to be done, for whom, and how many bytes it holds until then."""

    future: Future[Any]
    run: Callable[[], Any]
    nbytes: int


class LoadQueue:
    """See the module. Its futures cannot be cancelled: whoever does not wait any more leaves the work alone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: dict[str, deque[_Work]] = {}
        self._pool = ThreadPoolExecutor(SIDE_BY_SIDE, "loader")
        self._is_closed = False

    def submit(self, name: str, run: Callable[[], T], nbytes: int = 0, *, is_bounded: bool = True) -> Future[T]:
        """Do something once all earlier work of the model `name` has ended. Blocks: no.

        Args:
            name: of the model.
            run: does it.
            nbytes: what it holds.
            is_bounded: refuse it if the queue is full; False where the folders on the disk bound how much there is.

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
            line = self._lines.setdefault(name, deque())
            line.append(_Work(future, run, nbytes))
            if len(line) == 1:
                self._pool.submit(self._run_first, name)
        return future

    def close(self, drop: Callable[[str], Exception]) -> None:
        """Take no more work, and end all that has not begun with what `drop` makes of the model's name. Blocks: no."""
        dropped: list[tuple[str, _Work]] = []
        with self._lock:
            self._is_closed = True
            for name, line in self._lines.items():
                while len(line) > 1:
                    dropped.append((name, line.pop()))
        for name, work in dropped:
            work.future.set_exception(drop(name))
        self._pool.shutdown(wait=False)

    def is_idle(self, name: str) -> bool:
        """Whether no work of the model is under way or waits."""
        return name not in self._lines

    def _check_room(self, nbytes: int) -> None:
        held = [work.nbytes for line in self._lines.values() for work in line]
        if len(held) >= MOST_WAITING or (held and sum(held) + nbytes > MOST_WAITING_BYTES):
            raise QueueClosedError(f"{len(held)} loads wait already: try again later")

    def _run_first(self, name: str) -> None:
        work = self._lines[name][0]
        outcome: Any = None
        failure: BaseException | None = None
        try:
            outcome = work.run()
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
            work.future.set_result(outcome)
        else:
            work.future.set_exception(failure)

"""The bounded worker pool: decoding of frames and finishing of results, off the event loop and off the stage threads.

Theory of operation
    Two kinds of work wait here. *Results* come first, because an executed frame is worth more than one that is not;
    there are at most as many as batches in flight. *Work queues* hold encoded frames, one queue per stream; workers
    serve the queues round robin, one frame at a time per queue. This gives streams equal shares, keeps the frames of a
    stream in order, and lets a newer frame of a LATEST stream replace one that is not yet decoded.
    A frame that a GPU decodes has several steps, each of which waits for work that the one before it has begun. Between
    them the worker sees to other streams, so that a few workers keep a GPU's decoders busy; its stream keeps the turn.
    A frame that the worker decoded itself took long enough: then one that it has begun is next, however many wait.
    Everything here is bounded: permits bound the frames in queues, slots bound the results.

Thread: any for every method; the pool's condition guards the ring and every queue.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Generic, TypeVar

import structlog

from forebay_server.service.cores import usable_cores
from forebay_server.service.thread_name import name_this_thread

MAX_DEFAULT_WORKERS = 8
MOST_BEGUN = 4
"""Items of a worker that wait for their next step: a GPU takes about as long for a picture as four take to begin."""
T = TypeVar("T")
WorkStep = Callable[[], "WorkStep | None"]
"""A part of an item's work. Returns the next one, for which it is better to wait a little."""
log = structlog.get_logger(__name__)


class WorkQueue(Generic[T]):
    """The work of one client that waits for the workers, oldest first: frames, or jobs. Guarded by its pool."""

    __slots__ = ("__weakref__", "_at_rest", "_is_in_ring", "_items", "_pool", "_run", "_taken")

    def __init__(self, pool: "WorkerPool", run: Callable[[T], WorkStep | None]) -> None:
        self._pool = pool
        self._run = run
        self._items: deque[T] = deque()
        self._taken = 0  # items so far
        self._is_in_ring = False
        self._at_rest: Callable[[], None] | None = None

    @property
    def waiting_count(self) -> int:
        """How many items no worker has taken yet."""
        return len(self._items)

    @property
    def is_at_rest(self) -> bool:
        """Whether it is empty, and no worker runs an item of it. Thread: the one that pushes."""
        return not self._is_in_ring

    def push(self, item: T) -> None:
        """Append an item; a worker will `run` it after the earlier ones. Blocks: no."""
        with self._pool.condition:
            self._items.append(item)
            if not self._is_in_ring:
                self._is_in_ring = True
                self._pool.ring.append(self)
                self._pool.condition.notify()

    def take_waiting(self) -> list[T]:
        """Remove and return every item that no worker has taken yet."""
        with self._pool.condition:
            items = list(self._items)
            self._items.clear()
            self._taken += len(items)
            return items

    def visit_waiting(self, numbers: Iterable[int], visit: Callable[[int, T], None]) -> None:
        """Call `visit` with those of some items that no worker has taken yet; none is taken meanwhile.

        Args:
            numbers: of the items, counted from 0 in the order of pushes.
            visit: gets an item's number and the item.
        """
        with self._pool.condition:
            for number in numbers:
                if number >= self._taken:
                    visit(number, self._items[number - self._taken])

    def call_at_rest(self, do: Callable[[], None]) -> None:
        """Call `do` once the queue is empty and no worker runs an item of it: now, or on the worker of the last one.

        For the end of a queue: called once, and nothing is pushed any more.
        """
        with self._pool.condition:
            if self._is_in_ring:
                self._at_rest = do
                return
        do()

    def run_oldest(self) -> WorkStep | None:
        """Run the oldest item, or its first step; return what is left of the turn. Thread: a worker's."""
        with self._pool.condition:
            item = None
            if self._items:
                item = self._items.popleft()
                self._taken += 1
        return self._do(lambda: None if item is None else self._run(item))

    def _do(self, step: WorkStep) -> WorkStep | None:
        following = None
        try:
            following = step()
        finally:
            if following is None:
                self._end_turn()
        return None if following is None else partial(self._do, following)

    def _end_turn(self) -> None:
        """Move to the end of the ring if there are more items."""
        at_rest = None
        with self._pool.condition:
            if self._items:
                self._pool.ring.append(self)
                self._pool.condition.notify()
            else:
                self._is_in_ring = False
                at_rest = self._at_rest
        if at_rest is not None:
            at_rest()


class WorkerPool:
    """Threads for decoding and results.

    Args:
        threads: number of threads, at least 1.
        on_fatal: called with an exception that a job let escape, which is a bug.
    """

    def __init__(self, threads: int, on_fatal: Callable[[Exception], None]) -> None:
        self.condition = threading.Condition()
        self.ring: deque[WorkQueue] = deque()  # type: ignore[type-arg]  # queues of any item
        self._results: deque[Callable[[], None]] = deque()
        self._is_closed = False
        self._on_fatal = on_fatal
        self.busy_count = threads  # workers that do not wait for work, for metrics
        self._threads = [threading.Thread(target=self._work, name=f"worker-{i}", daemon=True) for i in range(threads)]
        for thread in self._threads:
            thread.start()

    @property
    def thread_count(self) -> int:
        """Number of workers."""
        return len(self._threads)

    @property
    def waiting_count(self) -> int:
        """Results and streams that wait for a worker now; read without the lock, for metrics."""
        return len(self._results) + len(self.ring)

    def submit_result(self, job: Callable[[], None]) -> None:
        """Run `job` before any frame is decoded. Blocks: no."""
        with self.condition:
            self._results.append(job)
            self.condition.notify()

    def close(self) -> None:
        """Finish the waiting work and join."""
        with self.condition:
            self._is_closed = True
            self.condition.notify_all()
        for thread in self._threads:
            thread.join()

    def _next(self, begun: "_Begun") -> WorkStep | None:
        """Return what a worker does next: a result, an item, or a step of one that it has begun."""
        with self.condition:
            while True:
                if self._results:
                    return partial(_do, self._results.popleft())
                if self.ring and begun.has_room:
                    begun.is_due = True
                    return self.ring.popleft().run_oldest
                if begun.steps:
                    begun.is_due = False
                    return begun.steps.popleft()
                self.busy_count -= 1
                if self._is_closed:
                    return None
                self.condition.wait()
                self.busy_count += 1

    def _work(self) -> None:
        name_this_thread()
        begun = _Begun()
        while (job := self._next(begun)) is not None:
            following = None
            try:
                following = job()
            except Exception as error:
                log.exception("worker job failed")
                self._on_fatal(error)
            job = None  # it has outputs of a batch, or a stream: a worker that waits holds none
            if following is not None:
                begun.add(following)


class _Begun:
    """What one worker has begun.

    Attributes:
        steps: the next ones of items, oldest first.
        is_due: whether a step comes before a further item: the item before it had no further steps.
    """

    def __init__(self) -> None:
        self.steps: deque[WorkStep] = deque()
        self.is_due = False

    @property
    def has_room(self) -> bool:
        """Whether a further item may be begun."""
        return not self.steps or (len(self.steps) < MOST_BEGUN and not self.is_due)

    def add(self, step: WorkStep) -> None:
        """Keep the next step of an item."""
        self.steps.append(step)
        self.is_due = False


def _do(job: Callable[[], None]) -> None:
    job()


def default_workers() -> int:
    """One worker per core that this process may use, at most eight."""
    return min(MAX_DEFAULT_WORKERS, usable_cores())

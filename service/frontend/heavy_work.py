"""Runs work that is too long for the event loop on the workers: one job at a time for each client, the clients in turn.

Thread: the event loop's; jobs run on a worker.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from forebay_server.service.worker_pool import WorkerPool, WorkQueue

T = TypeVar("T")


class _Job:
    """A job. `done` belongs to the event loop; the worker completes it after it has released everything.

    Args:
        do: the job.
        loop: the event loop.
    """

    def __init__(self, do: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> None:
        self.done: asyncio.Future[Any] = loop.create_future()
        self._do = do
        self._loop = loop
        self._claims: deque[None] = deque((None,))

    def claim(self) -> bool:
        """Claim the job: the worker to run it, or the loop so that it is not run. One of them can. Thread: any."""
        try:
            self._claims.pop()
        except IndexError:
            return False
        return True

    def run(self) -> None:
        """Run the job, if it is still wanted, and notify the event loop. Thread: a worker's."""
        if not self.claim():
            return
        result: Any = None
        failure: Exception | None = None
        try:
            result = self._do()
        except Exception as error:  # noqa: BLE001 - any error ends this job, not the worker
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._tell, result, failure)

    def _tell(self, result: Any, failure: Exception | None) -> None:  # noqa: ANN401 - what the job returned
        if failure is not None:
            self.done.set_exception(failure)
        else:
            self.done.set_result(result)


class HeavyWork:
    """See the module.

    Args:
        pool: whose workers do it.
    """

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool
        # a queue lives while it has jobs
        self._queues: WeakValueDictionary[Hashable, WorkQueue[_Job]] = WeakValueDictionary()

    def start(self, client: Hashable, do: Callable[[], T]) -> "asyncio.Future[T]":
        """Start the job `do` and return the future of its result, which must not be cancelled.

        Args:
            client: owner of the job.
            do: the job; runs on a worker.
        """
        return self._start(client, do).done

    async def done(self, client: Hashable, do: Callable[[], T], undo: Callable[[T], None] = lambda _: None) -> T:
        """Run the job `do` and return its result, or raise its exception.

        A caller that is cancelled meanwhile returns when no worker uses the caller's data any more.

        Args:
            client: owner of the job.
            do: the job; runs on a worker, unless the caller is cancelled before it begins.
            undo: called with the result if the caller is cancelled, at any time. Thread: the event loop's.
        """
        job = self._start(client, do)
        try:
            result: T = await asyncio.shield(job.done)
        except asyncio.CancelledError:
            if not job.claim():
                job.done.add_done_callback(partial(_undo, undo))
                await asyncio.wait((job.done,))
            raise
        return result

    def _start(self, client: Hashable, do: Callable[[], Any]) -> _Job:
        job = _Job(do, asyncio.get_running_loop())
        queue = self._queues.get(client)
        if queue is None:
            queue = self._queues[client] = WorkQueue(self._pool, _Job.run)
        queue.push(job)
        return job


def _undo(undo: Callable[[T], None], done: "asyncio.Future[T]") -> None:
    if done.exception() is None:
        undo(done.result())

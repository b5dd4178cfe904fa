"""What would hold up the event loop, done by the workers: one job at a time for each client, the clients in turn.

Thread: the event loop's; jobs run on a worker.
"""

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from service.worker_pool import Line, WorkerPool

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Job:
    """A job; `done` and what is told to it belong to the event loop."""

    do: Callable[[], Any]
    undo: Callable[[Any], None]
    loop: asyncio.AbstractEventLoop
    done: "asyncio.Future[Any]"

    def run(self) -> None:
        """Do it and tell the event loop. Thread: a worker's."""
        if self.done.cancelled():
            return
        result: Any = None
        failure: Exception | None = None
        try:
            result = self.do()
        except Exception as error:  # noqa: BLE001 - whatever it is ends this job, not the worker
            failure = error
        try:
            self.loop.call_soon_threadsafe(self._tell, result, failure)
        except RuntimeError:  # the loop has ended
            self._drop(result, failure)

    def _tell(self, result: Any, failure: Exception | None) -> None:  # noqa: ANN401 - what the job returned
        if self.done.cancelled():
            self._drop(result, failure)
        elif failure is not None:
            self.done.set_exception(failure)
        else:
            self.done.set_result(result)

    def _drop(self, result: Any, failure: Exception | None) -> None:  # noqa: ANN401 - what the job returned
        if failure is None:
            self.undo(result)


class HeavyWork:
    """See the module.

    Args:
        pool: whose workers do it.
    """

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool
        self._lines: WeakValueDictionary[Hashable, Line[_Job]] = WeakValueDictionary()  # a line lives while it has jobs

    def start(
        self, client: Hashable, do: Callable[[], T], undo: Callable[[T], None] = lambda _: None
    ) -> "asyncio.Future[T]":
        """Have `do` done and return what becomes of it.

        Args:
            client: whose job it is.
            do: the job; runs on a worker.
            undo: told the result if the future was cancelled meanwhile. Thread: any.
        """
        loop = asyncio.get_running_loop()
        job = _Job(do, undo, loop, loop.create_future())
        line = self._lines.get(client)
        if line is None:
            line = self._lines[client] = Line(self._pool, _Job.run)
        line.push(job)
        return job.done

    async def done(self, client: Hashable, do: Callable[[], T], undo: Callable[[T], None]) -> T:
        """Have `do` done and return its result, or raise what it raises; arguments as for `start`.

        If the caller is cancelled the result is undone, also one that had just come and was not handed over yet.
        """
        result = self.start(client, do, undo)
        try:
            return await result
        except asyncio.CancelledError:
            if not result.cancelled() and result.exception() is None:
                undo(result.result())
            raise

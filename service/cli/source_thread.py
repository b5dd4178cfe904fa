"""A thread of its own for one source: reading a disk, a device or a network blocks, and the event loop must not."""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

CLOSE_LIMIT_S = 1.0  # a camera that is there gives a frame within this time; one that hangs is left alone
LAST_LIMIT_S = 10.0  # a long clip gets its index, a camera its TEARDOWN


class SourceThread:
    """Runs functions one after the other. The thread is a daemon: a read that hangs does not keep the process alive.

    Owner: the event loop on which it was made.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._work: queue.SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = queue.SimpleQueue()
        self._ended = asyncio.Event()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    async def call(self, function: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """Run a function on the thread, and return its value or raise its exception.

        A cancelled call still runs to its end, and later calls wait for it.
        """
        outcome: asyncio.Future[T] = self._loop.create_future()
        self._work.put((lambda: function(*arguments), outcome))
        return await outcome

    async def close(self, last: Callable[[], object]) -> bool:
        """Run a last function and end the thread; return False if it hangs in a function, and is left alone."""
        begun = asyncio.Event()

        def run_last() -> None:
            self._post(begun.set)
            last()

        self._work.put((run_last, self._loop.create_future()))
        self._work.put(None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_LIMIT_S):
                await begun.wait()
            async with asyncio.timeout(LAST_LIMIT_S):
                await self._ended.wait()
        return self._ended.is_set()

    def _run(self) -> None:
        while (item := self._work.get()) is not None:
            function, outcome = item
            try:
                value = function()
            except BaseException as error:  # noqa: BLE001 - the caller raises it
                self._post(_fail, outcome, error)
            else:
                self._post(_succeed, outcome, value)
            del item, function, outcome
        self._post(self._ended.set)

    def _post(self, function: Callable[[*Ts], object], *arguments: *Ts) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and so is every caller
            self._loop.call_soon_threadsafe(function, *arguments)


def _succeed(outcome: asyncio.Future[Any], value: Any) -> None:  # noqa: ANN401
    if not outcome.done():
        outcome.set_result(value)


def _fail(outcome: asyncio.Future[Any], error: BaseException) -> None:
    if not outcome.done():
        outcome.set_exception(error)

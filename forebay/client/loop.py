"""An event loop in a thread of its own, for the synchronous client."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from forebay.client.errors import StreamClosedError
from forebay.client.forks import is_child

T = TypeVar("T")

JOIN_TIMEOUT_S = 5.0


class _Call(Generic[T]):
    """A coroutine that runs on a loop while a thread waits for its end.

    The thread waits on a lock that guards no data: an interrupt cannot leave locked what the loop needs, as it can with
    a `concurrent.futures.Future` (see `forebay.client.monitor`).
    """

    def __init__(self, coroutine: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> None:
        self._coroutine = coroutine
        self._loop = loop
        self._task: asyncio.Task[T] | None = None
        self._value: T
        self._error: BaseException | None = None
        self._ended = threading.Lock()
        self._ended.acquire()
        loop.call_soon_threadsafe(self._start)

    def result(self) -> T:
        """Wait for the end, and return the coroutine's value or raise its exception."""
        self._ended.acquire()
        if self._error is not None:
            raise self._error
        return self._value

    def cancel(self) -> None:
        """Cancel the coroutine, if it runs. Thread: any."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, and has cancelled the coroutine
            self._loop.call_soon_threadsafe(self._cancel)

    def _start(self) -> None:
        self._task = self._loop.create_task(self._coroutine)
        self._task.add_done_callback(self._end)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _end(self, task: asyncio.Task[T]) -> None:
        # free the task on this thread: the callback of a weak reference to it would swallow an interrupt
        self._task = None
        if task.cancelled():
            self._error = StreamClosedError("the client is closed")
        elif (error := task.exception()) is not None:
            self._error = error
        else:
            self._value = task.result()
        self._ended.release()


class LoopThread:
    """Runs coroutines for other threads. The thread is a daemon: it never keeps a process alive.

    Args:
        name: of the thread.
        last_words: coroutine function that the loop runs when it is stopped.
    """

    def __init__(self, name: str, last_words: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._last_words = last_words
        self._lock = threading.Lock()
        self._is_stopping = False
        self._error: BaseException | None = None  # of the last words
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether the loop accepts coroutines."""
        with self._lock:
            return not self._is_stopping

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and return its value. Blocks. A KeyboardInterrupt cancels the coroutine.

        Raises:
            StreamClosedError: the loop is stopped.
        """
        with self._lock:  # a coroutine submitted before `stop` runs, or is cancelled, before the loop stops
            if self._is_stopping:
                coroutine.close()
                raise StreamClosedError("the client is closed")
            call = _Call(coroutine, self._loop)
        try:
            return call.result()
        except BaseException:
            call.cancel()
            raise

    def stop(self) -> None:
        """End the loop and join the thread, unless called on it. Idempotent.

        Raises what the last words raised, once. The coroutines that ran have been cancelled all the same.
        """
        if is_child():  # a finalizer at the end of a forked process, where the thread is not
            return
        with self._lock:
            if not self._is_stopping:
                self._is_stopping = True
                self._loop.call_soon_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join(JOIN_TIMEOUT_S)
            error, self._error = self._error, None
            if error is not None:
                raise error

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        try:
            self._loop.run_until_complete(self._last_words())
        except BaseException as error:  # noqa: BLE001 - the thread that stops the loop raises it
            self._error = error
        for task in (tasks := asyncio.all_tasks(self._loop)):
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

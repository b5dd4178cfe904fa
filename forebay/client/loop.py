"""An event loop in a thread of its own, for the synchronous client."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from forebay.client.errors import StreamClosedError

T = TypeVar("T")

JOIN_TIMEOUT_S = 5.0


class LoopThread:
    """Runs coroutines for other threads. The thread is a daemon: it never keeps a process alive.

    Args:
        name: of the thread.
        last_words: run on the loop when it is stopped.
    """

    def __init__(self, name: str, last_words: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._last_words = last_words
        self._lock = threading.Lock()
        self._is_stopping = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether it takes work."""
        with self._lock:
            return not self._is_stopping

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and return what it returns. Blocks. A KeyboardInterrupt cancels it.

        Raises:
            StreamClosedError: the loop is stopped.
        """
        with self._lock:  # what is submitted before `stop` is also run, or cancelled, before it
            if self._is_stopping:
                coroutine.close()
                raise StreamClosedError("the client is closed")
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """End the loop and join the thread, unless called on it. Idempotent."""
        with self._lock:
            if not self._is_stopping:
                self._is_stopping = True
                self._loop.call_soon_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join(JOIN_TIMEOUT_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(self._last_words())
            for task in (tasks := asyncio.all_tasks(self._loop)):
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self._loop.close()

"""The server's event loop: asyncio's own, extended by a callback for idle moments.

Theory of operation
    A loop iteration waits for sockets (`select`), then runs what became ready. `call_when_idle` runs a callback when
    the loop would wait: no callback is ready and no socket is. Work that gets cheaper the more of it there is, as
    forming batches (`service.pipeline.inline_runner`), is put off that way for as long as reading goes on: an idle loop
    runs it at once. On a loop that is never idle it runs once the first that asked has waited for the time that it
    allowed.

    The callbacks of an iteration have waited for other work: `waited_ns` returns how long. A socket becomes ready, and
    grpc.aio resolves a future in that iteration; the coroutine that awaits the future runs in the next one. So the wait
    counts from the beginning of the previous iteration.

    The loop calls its selector when it would wait, so the selector detects idle moments. No private name of asyncio is
    used.

Owner: the loop's thread.
"""

import asyncio
import selectors
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)


class _IdleSelector(selectors.DefaultSelector):
    """Runs the deferred callbacks before it blocks."""

    def __init__(self, time: Callable[[], float]) -> None:
        super().__init__()
        self._time = time
        self.callbacks: dict[Callable[[], None], None] = {}  # in the order of their registration
        self.due_s = 0.0
        self.began_s = self.earlier_began_s = 0.0  # this iteration, and the previous one

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return the ready sockets, after the deferred callbacks have run if there is no other work."""
        ready = super().select(0 if self.callbacks else timeout)
        self.earlier_began_s, self.began_s = self.began_s, self._time()
        if not self.callbacks:
            return ready
        is_idle = not ready and (timeout is None or timeout > 0)
        if is_idle or self.began_s >= self.due_s:
            self._run()
        return ready

    def _run(self) -> None:
        callbacks, self.callbacks = self.callbacks, {}
        for callback in callbacks:
            try:
                callback()
            except Exception:  # a bug in a callback must not stop the callbacks behind it
                log.exception("work of an idle moment failed")


class ServingLoop(asyncio.SelectorEventLoop):
    """See the module's theory of operation."""

    def __init__(self) -> None:
        self._idle = _IdleSelector(self.time)
        super().__init__(self._idle)

    @property
    def waited_ns(self) -> int:
        """How long the current callback has waited since it was ready. Thread: the loop's."""
        return max(0, int((self.time() - self._idle.earlier_began_s) * 1e9))

    def call_when_idle(self, callback: Callable[[], None], within_s: float) -> None:
        """Run `callback` when the loop has no other work; once, however often it is registered before that.

        Args:
            callback: must not raise; if it does, the exception is logged.
            within_s: a busy loop runs it after that time, counted from the first waiting callback.

        Thread: the loop's. Blocks: no.
        """
        idle = self._idle
        if not idle.callbacks:
            idle.due_s = self.time() + within_s
        idle.callbacks[callback] = None

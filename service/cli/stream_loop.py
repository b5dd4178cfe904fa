"""The event loop of `forebay stream`: asyncio's own, which asks the kernel for events when it has nothing else to do.

Theory of operation
    asyncio asks its selector in each turn, also in turns that have callbacks to run and do not wait. A frame takes
    seven turns, and in four of them one coroutine wakes another: their question to the kernel takes as long as their
    work. So the selector answers "nothing new" while the loop has callbacks, for a few turns in a row.

Owner: the loop's thread.
"""

import asyncio
import selectors

MOST_TURNS = 8  # without a question: work that never ends must not keep the loop from its sockets


class PatientSelector(selectors.DefaultSelector):
    """See the module's theory of operation."""

    def __init__(self) -> None:
        super().__init__()
        self._turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return the ready sockets; none while the loop has callbacks to run, which is what a timeout of 0 says."""
        if timeout == 0 and self._turns < MOST_TURNS:
            self._turns += 1
            return []
        self._turns = 0
        return super().select(timeout)


def stream_loop() -> asyncio.SelectorEventLoop:
    """Return a new loop."""
    return asyncio.SelectorEventLoop(PatientSelector())

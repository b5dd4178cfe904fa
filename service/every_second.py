"""Something that looks once a second. Owner: the event loop's thread."""

import asyncio
from abc import ABC, abstractmethod
from typing import ClassVar

import structlog

log = structlog.get_logger(__name__)

INTERVAL_S = 1.0


class EverySecond(ABC):
    """Calls `look` once a second between `start` and `stop`.

    A look that raises is logged and does not end the next ones: what it reads may be there again by then.
    """

    complaint: ClassVar[str]
    """The log line of a look that raised."""

    _task: asyncio.Task[None] | None = None

    @abstractmethod
    def look(self) -> None:
        """Read and decide once."""

    def start(self) -> None:
        """Begin; the first look is a second away."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        """End. Idempotent."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL_S)
            try:
                self.look()
            except Exception:
                log.exception(self.complaint)

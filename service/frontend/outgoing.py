"""The messages that leave on one stream: one write at a time, and the time since it waits for the client.

Owner: the event loop's thread.
"""

import asyncio
from typing import Any, TypeAlias

import grpc

from forebay_server.service.clock import Clock
from forebay_server.service.errors import SlowReaderError

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Outgoing:
    """See the module.

    Attributes:
        last_sent_ns: time when the transport took the latest message; at first, the stream's beginning.
    """

    def __init__(self, context: Context, clock: Clock) -> None:
        self.last_sent_ns = clock.now_ns()
        self._context: Context | None = context
        self._clock = clock
        self._writing_since_ns: int | None = None  # while something is being written
        self._given_up = asyncio.Event()

    async def begin(self) -> None:
        """Send the initial metadata: without them gRPC cannot send a status while the first message waits."""
        if self._context is not None:
            await self._context.send_initial_metadata(())

    async def write(self, message: bytes) -> None:
        """Hand a message to the transport. Waits while the client takes nothing."""
        if self._context is None:
            return
        self._writing_since_ns = self._clock.now_ns()
        await self._context.write(message)
        self.last_sent_ns = self._clock.now_ns()
        self._writing_since_ns = None

    def is_stuck(self, now_ns: int, deadline_s: float) -> bool:
        """Whether the current write has taken longer than `deadline_s`; never for 0."""
        since_ns = self._writing_since_ns
        return since_ns is not None and 0 < deadline_s < (now_ns - since_ns) / 1e9

    def give_up(self) -> None:
        """Make `join` raise."""
        self._given_up.set()

    async def join(self, writer: "asyncio.Task[None]") -> None:
        """Wait until the writer has written everything. Raises SlowReaderError after `give_up`."""
        given_up = asyncio.ensure_future(self._given_up.wait())
        try:
            await asyncio.wait((writer, given_up), return_when=asyncio.FIRST_COMPLETED)
        finally:
            given_up.cancel()
        if self._given_up.is_set():
            self._context = None  # gRPC ends the call when its last reference goes, so keep none
            raise SlowReaderError("the client took no message for too long; read results while sending frames")
        await writer

"""A streaming call of either protocol: the only loop that reads and writes, and the ways in which it ends.

Theory of operation
    The handler reads, a task writes. A `Conversation` has the contents: it takes messages and gives messages, and does
    no I/O. The handler reads while the conversation has room, so that HTTP/2 pushes back on a client that sends too
    fast. The task writes the next message, one at a time, until the conversation is finished.

    A call ends when its client has half-closed or reading was stopped, and everything was written; at once when the
    client has gone, or takes nothing for too long (`give_up`). Housekeeping looks at all calls that are open.

It uses public API of grpc.aio, with raw bytes on both sides (docs/adr/0006). Owner: the event loop's thread.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeAlias

import grpc

from forebay_server.service.clock import Clock
from forebay_server.service.frontend.outgoing import Outgoing
from forebay_server.service.frontend.received import received_ns
from forebay_server.service.frontend.reception.receptions import Receptions
from forebay_server.service.journal.streams import OPENED_HOW, REFUSED_WHY
from forebay_server.service.pipeline.permits import Permits
from forebay_server.service.pipeline.shares import Share

LOOK_INTERVAL_S = 0.5  # heartbeats and lifetimes need no more precision
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Conversation(Protocol):
    """The contents of a call. It wakes its call by the call's `output` and `room`. Thread: the event loop's."""

    @property
    def share(self) -> Share:
        """Its share of the permits."""
        ...

    @property
    def error(self) -> Exception | None:
        """The error that ends the call after all earlier messages are written; no message is read any more then."""
        ...

    @property
    def has_room(self) -> bool:
        """Whether another message may be read."""
        ...

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will be written."""
        ...

    def on_message(self, data: bytes, received_ns: int) -> Awaitable[None] | None:
        """Take a message; return what is to be awaited before the next is read, or None.

        Never raises for a client's mistake.
        """
        ...

    def next_message(self) -> bytes | None:
        """Return what to write next, or None."""
        ...

    def stop_reading(self) -> None:
        """Nothing more will be read: answer what was, then finish."""
        ...

    def abandon(self) -> None:
        """The call has ended: cancel what waits, forget what executes. Nothing is left to do if it is finished."""
        ...


def _nothing(now_ns: int) -> None:
    pass


class StreamCall:
    """See the module's theory of operation.

    Args:
        context: of the call.
        receptions: reads the messages.
        permits: of which the conversation has a share.
        clock: source of monotonic nanoseconds.

    Attributes:
        output: set when there is something to write, or the conversation finished.
        room: set when reading may go on.
        opened_ns: when the call began.
        read: returns the next message of a context, or None when the client half-closed or reading was stopped.
        on_look: called by housekeeping twice a second with the present instant.
    """

    def __init__(self, context: Context, receptions: Receptions, permits: Permits, clock: Clock) -> None:
        self.outgoing = Outgoing(context, clock)
        self.reading = receptions.begin(context)
        self.output = asyncio.Event()
        self.room = asyncio.Event()
        self.opened_ns = clock.now_ns()
        self.on_look: Callable[[int], None] = _nothing
        self.reading.on_refused = self.room.set
        self.read = receptions.reader(self.reading)
        self._receptions = receptions
        self._permits = permits
        self._clock = clock

    @property
    def is_stopped(self) -> bool:
        """Whether reading was stopped."""
        return self.reading.is_stopped

    def stop_reading(self) -> None:
        """End the read that is under way, as if the client had half-closed. Idempotent."""
        self.reading.stop()
        self.room.set()

    def give_up(self) -> None:
        """End the call without its last answers: the client takes none."""
        self.outgoing.give_up()
        self.stop_reading()

    def end(self) -> None:
        """The call has ended."""
        self.on_look = _nothing
        self._receptions.end(self.reading)

    async def converse(self, conversation: Conversation, context: Context) -> None:
        """Hold a conversation to its end, beginning with the initial metadata.

        Raises:
            SlowReaderError: the client took nothing for too long.
            Exception: the error with which the conversation, or the reception of messages, ended the call.
        """
        writer: asyncio.Task[None] | None = None
        try:
            await self.outgoing.begin()
            writer = asyncio.create_task(self._write(conversation))
            await self._read_until_done(conversation, writer, context)
            conversation.stop_reading()
            await self.outgoing.join(writer)
        finally:
            conversation.abandon()
            self._permits.leave(conversation.share)
            if writer is not None:
                writer.cancel()
                with contextlib.suppress(asyncio.CancelledError, grpc.aio.UsageError, Exception):
                    await writer
        error = conversation.error or self.reading.refusal
        if error is not None:
            raise error

    async def _read_until_done(
        self, conversation: Conversation, writer: "asyncio.Task[None]", context: Context
    ) -> None:
        while conversation.error is None:
            while not (conversation.has_room or self.reading.is_stopped or writer.done()):
                self.room.clear()
                await self.room.wait()
            data = None if writer.done() else await self.read(context)
            if data is None:
                return
            waiting = conversation.on_message(data, received_ns(self._clock))
            del data  # the next message may be long in coming
            if waiting is not None:
                await waiting

    async def _write(self, conversation: Conversation) -> None:
        try:
            while True:
                message = conversation.next_message()
                if message is not None:
                    await self.outgoing.write(message)
                elif conversation.is_finished:
                    return
                else:
                    self.output.clear()
                    await self.output.wait()
        finally:
            self.stop_reading()  # a reader waits for room or for the client; neither may come if writing failed


class OtherStreams(Protocol):
    """The open streams of the server that other processes have."""

    def count(self) -> int:
        """Return how many there are."""
        ...

    def note(self, own: int) -> None:
        """Take how many are open in this process."""
        ...


class NoOtherStreams:
    """Implements `OtherStreams` for a server of one process."""

    def count(self) -> int:
        """Return 0."""
        return 0

    def note(self, own: int) -> None:
        """Do nothing."""


NO_OTHER_STREAMS = NoOtherStreams()


class StreamCalls:
    """The streaming calls of all protocols.

    Args:
        receptions: reads their messages.
        permits: server-wide.
        clock: source of monotonic nanoseconds.
        others: those of other processes.

    Attributes:
        open: those that have begun and not ended; housekeeping looks at them.
        opened: streams so far, by how.
        refused: streams so far, by why.
    """

    def __init__(
        self, receptions: Receptions, permits: Permits, clock: Clock, others: OtherStreams = NO_OTHER_STREAMS
    ) -> None:
        self.open: set[StreamCall] = set()
        self.opened: Counter[str] = Counter(dict.fromkeys(OPENED_HOW, 0))
        self.refused: Counter[str] = Counter(dict.fromkeys(REFUSED_WHY, 0))
        self._others = others
        self._receptions = receptions
        self._permits = permits
        self._clock = clock

    def has_room(self, most: int) -> bool:
        """Whether fewer than `most` streams are open in the server."""
        return len(self.open) + self._others.count() < most

    def begin(self, context: Context) -> StreamCall:
        """Return the call of a handler that begins, which calls `end` when it ends."""
        call = StreamCall(context, self._receptions, self._permits, self._clock)
        self.open.add(call)
        self._others.note(len(self.open))
        return call

    def end(self, call: StreamCall) -> None:
        """A call has ended."""
        self.open.discard(call)
        self._others.note(len(self.open))
        call.end()

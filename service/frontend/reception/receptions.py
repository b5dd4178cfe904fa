"""The messages in reception, of all connections: the event loop's side.

Every handler of a single request becomes one that reads its message itself. So Forebay's code runs from the call's
headers on: it lets calls in (`gate`), and can end one whose message does not come to an end.

Owner: the event loop's thread. The upkeep's thread reads `accounts`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, NoReturn

import grpc

from forebay_server.service.clock import Clock
from forebay_server.service.errors import NotReadyError, Outcome, TooManyStreamsError
from forebay_server.service.frontend.handlers import Context, GenericHandler, Handler, RpcHandler, Wrapped
from forebay_server.service.frontend.reception.gate import ReceptionGate
from forebay_server.service.frontend.reception.pace import Pace
from forebay_server.service.frontend.reception.reading import Account, Reading
from forebay_server.service.frontend.reception.refusals import RefusalPace, RefusedError
from forebay_server.service.frontend.statuses import StatusError, metadata_of
from forebay_server.service.settings import ServeSettings

PACE_SLACK_NS = 50_000_000  # calls that came together may be read although earlier ones have used up the pace


class Receptions:
    """See the module.

    Args:
        settings: limits.
        clock: source of monotonic nanoseconds.
        statuses: outcome of a refusal -> the status of its call.

    Attributes:
        accounts: by peer.
        budget_bytes: limit of all messages in reception: the setting, and at least twice the largest message.
    """

    def __init__(self, settings: ServeSettings, clock: Clock, statuses: Mapping[Outcome, grpc.StatusCode]) -> None:
        self.accounts: dict[str, Account] = {}
        self.budget_bytes = max(settings.reception_bytes, 2 * settings.max_message_bytes)
        self._statuses = statuses
        self._largest_bytes = settings.max_message_bytes
        # As much again waits unread, and streams take the rest. Compressed messages: almost none wait unread.
        half, quarter = self.budget_bytes // 2, self.budget_bytes // 4
        is_strict = settings.allow_compression
        self.gate = ReceptionGate(half if is_strict else quarter, is_strict=is_strict)
        # Questions about health do not wait behind requests: an orchestrator restarts a server that does not answer.
        self.health_gate = ReceptionGate(self._largest_bytes, is_strict=True) if is_strict else self.gate
        self._pace = Pace(settings.compression_bytes_per_s, clock) if is_strict else None
        self._refusals = RefusalPace(clock)
        self._streams: set[Reading] = set()
        self._most_streams = half // self._largest_bytes if is_strict else None

    def account_of(self, peer: str) -> Account:
        """Return the account of a connection."""
        account = self.accounts.get(peer)
        if account is None:
            account = self.accounts[peer] = Account(peer, self._largest_bytes)
        return account

    def forget(self, account: Account) -> None:
        """Drop the account of a connection that has ended."""
        if not account.calls and self.accounts.get(account.peer) is account:
            del self.accounts[account.peer]

    def begin(self, context: Context, *, is_single: bool = False) -> Reading:
        """Return the reader of the messages of a call that has begun. The caller calls `end`.

        Each stream may have a message inflated at any moment: where that is allowed, streams beyond the room are
        refused.
        """
        reading = Reading(self.account_of(context.peer()), is_single=is_single)
        reading.account.begin(reading)
        if self._most_streams is not None and not is_single:
            if len(self._streams) < self._most_streams:
                self._streams.add(reading)
            else:
                words = f"the server has {self._most_streams} streams open, the most where messages may be compressed"
                reading.refuse(TooManyStreamsError(words, retry_after_ms=1000))
        return reading

    def end(self, reading: Reading) -> None:
        """Record the end of a call."""
        reading.account.end(reading)
        self._streams.discard(reading)

    def reader(self, reading: Reading) -> Callable[[Context], Awaitable[bytes | None]]:
        """Return what reads a stream's messages, as `Reading.read`, at the pace at which its connection may send."""
        if self._pace is None:
            return reading.read
        return partial(self._read_in_time, reading, self._pace)

    async def _read_in_time(self, reading: Reading, pace: Pace, context: Context) -> bytes | None:
        await pace.wait(reading.account.peer)
        message = await reading.read(context)
        if message is not None:
            pace.count(reading.account.peer, len(message))
        return message

    async def _let_in(self, reading: Reading, gate: ReceptionGate) -> int:
        """Return the reservation of a call once it may be read; 0 if it was refused."""
        account = reading.account
        if self._pace is None and (reserved := gate.enter(account)):
            return reserved
        reading.task = asyncio.current_task()
        try:
            while True:
                if self._pace is not None:
                    await self._pace.wait(account.peer)
                reserved = gate.enter(account) or await gate.wait(account)
                if self._pace is None or self._pace.delay_ns(account.peer) < PACE_SLACK_NS:
                    return reserved
                gate.leave(account, reserved, None)  # its connection has sent too much meanwhile
        except asyncio.CancelledError:
            if reading.was_stopped():
                return 0
            raise
        finally:
            reading.task = None

    def read_first(self, generic: GenericHandler, gate: ReceptionGate) -> GenericHandler:
        """Return a handler whose single requests are read here, as `gate` lets them in."""
        return Wrapped(generic, partial(self._read_first, gate))

    def _read_first(self, gate: ReceptionGate, handler: RpcHandler) -> RpcHandler:
        if handler.request_streaming:
            return handler
        make, inner = (
            (grpc.stream_stream_rpc_method_handler, handler.unary_stream)
            if handler.response_streaming
            else (grpc.stream_unary_rpc_method_handler, handler.unary_unary)
        )
        return make(self._reading_call(inner, gate), handler.request_deserializer, handler.response_serializer)

    def _reading_call(self, inner: Handler, gate: ReceptionGate) -> Handler:
        async def call(_: Any, context: Context) -> Any:  # noqa: ANN401 - the request iterator, unused
            try:
                if not gate.is_strict:
                    return await inner(await self.message_of(context, gate), context)
                return await self._answer_strictly(inner, context, gate)
            except StatusError as error:
                # Without its traceback, which holds the message; and not sent here, where it would be the context.
                code, words, metadata = error.code, error.message, error.metadata
                is_refused = isinstance(error, RefusedError)
            if is_refused:
                await self._wait_to_refuse(context)
            return await context.abort(code, words, metadata)

        return call

    async def _answer_strictly(self, inner: Handler, context: Context, gate: ReceptionGate) -> Any:  # noqa: ANN401 - as `inner`
        message = await self.message_of(context, gate)
        nbytes = len(message)
        try:
            return await inner(message, context)
        finally:
            gate.forget(nbytes)

    async def _wait_to_refuse(self, context: Context) -> None:
        delay_ns = self._refusals.delay_ns(context.peer(), context.time_remaining())
        if delay_ns:
            await asyncio.sleep(delay_ns / 1e9)

    def stop_requests(self) -> None:
        """Refuse the single requests whose message has not come to its end. For a drain, which would wait for them."""
        words = "the server is shutting down, and the message had not come to its end; send it to another one"
        for reading in [each for account in self.accounts.values() for each in account.calls if each.is_single]:
            reading.refuse(NotReadyError(words))

    def refusing(self, code: grpc.StatusCode, message: str) -> Handler:
        """Return a handler that refuses calls unread; the received part of their messages goes with them."""

        async def refuse(_: Any, context: Context) -> NoReturn:  # noqa: ANN401 - the request iterator, unused
            reading = self.begin(context, is_single=True)
            try:
                await context.abort(code, message)
            finally:
                self.end(reading)

        return refuse

    async def message_of(self, context: Context, gate: ReceptionGate) -> bytes:
        """Return the one message of a call. Aborts the call if it does not come."""
        reading = self.begin(context, is_single=True)
        account = reading.account
        message: bytes | None = None
        try:
            reserved = await self._let_in(reading, gate)
            if reserved:
                try:
                    message = await reading.read(context)
                    if self._pace is not None and message is not None:
                        self._pace.count(account.peer, len(message))
                finally:
                    gate.leave(account, reserved, None if message is None else len(message))
            reading.has_come = message is not None
        finally:
            self.end(reading)
        if message is None:
            await self._refuse(reading, context)
            raise asyncio.CancelledError
        return message

    async def _refuse(self, reading: Reading, context: Context) -> None:
        """End a call that has no message. Raises AbortError, unless the call has ended already."""
        try:
            if reading.refusal is not None:
                metadata = metadata_of(is_for_elsewhere=reading.refusal.is_for_elsewhere)
                await context.abort(self._statuses[reading.refusal.outcome], reading.refusal.message, metadata)
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the call has no message; a request is one message")
        except grpc.aio.InternalError:  # gRPC has refused it, or its client has left
            pass

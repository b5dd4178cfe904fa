"""The messages that are being received, of all connections: the event loop's side.

Every handler of a single request becomes one that reads its message itself. So our code runs from the call's headers
on: it lets calls in (`reception_gate`), and can end one whose message does not come to an end.

Owner: the event loop's thread. The upkeep's thread reads `accounts`.
"""

import asyncio
from typing import Any, NoReturn

import grpc

from forebay_server.service.clock import Clock
from forebay_server.service.errors import NotReadyError
from forebay_server.service.frontend.handlers import Context, GenericHandler, Handler, RpcHandler, Wrapped
from forebay_server.service.frontend.inference_errors import INFERENCE_STATUS
from forebay_server.service.frontend.pace import Pace
from forebay_server.service.frontend.reception import Account, Reading
from forebay_server.service.frontend.reception_gate import ReceptionGate
from forebay_server.service.settings import ServeSettings


class Receptions:
    """See the module.

    Args:
        settings: limits.
        clock: time.

    Attributes:
        accounts: by peer.
        budget_bytes: that all messages in reception may have: the setting, and at least twice the largest one.
    """

    def __init__(self, settings: ServeSettings, clock: Clock) -> None:
        self.accounts: dict[str, Account] = {}
        self.budget_bytes = max(settings.reception_bytes, 2 * settings.max_message_bytes)
        self.gate = ReceptionGate(self.budget_bytes // 4)  # as much again waits unread, and streams take the rest
        self._largest_bytes = settings.max_message_bytes
        self._pace = Pace(settings.compression_bytes_per_s, clock) if settings.allow_compression else None

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
        """Return what reads the messages of a call that has begun. Whoever asks calls `end`."""
        reading = Reading(self.account_of(context.peer()), is_single=is_single)
        reading.account.begin(reading)
        return reading

    def end(self, reading: Reading) -> None:
        """A call has ended."""
        reading.account.end(reading)

    async def read(self, reading: Reading, context: Context) -> bytes | None:
        """Return the next message, as `Reading.read`, at the pace at which its connection may send."""
        if self._pace is None:
            return await reading.read(context)
        await self._pace.wait(reading.account.peer)
        message = await reading.read(context)
        if message is not None:
            self._pace.count(reading.account.peer, len(message))
        return message

    async def _wait(self, reading: Reading) -> int:
        """Return what a call reserved once there is room for it; 0 if it was refused."""
        reading.task = asyncio.current_task()
        try:
            return await self.gate.wait(reading.account)
        except asyncio.CancelledError:
            if reading.was_stopped():
                return 0
            raise
        finally:
            reading.task = None

    def read_first(self, generic: GenericHandler) -> GenericHandler:
        """Return a handler whose single requests are read by this."""
        return Wrapped(generic, self._read_first)

    def _read_first(self, handler: RpcHandler) -> RpcHandler:
        if handler.request_streaming:
            return handler
        make, inner = (
            (grpc.stream_stream_rpc_method_handler, handler.unary_stream)
            if handler.response_streaming
            else (grpc.stream_unary_rpc_method_handler, handler.unary_unary)
        )
        return make(self._reading_call(inner), handler.request_deserializer, handler.response_serializer)

    def _reading_call(self, inner: Handler) -> Handler:
        async def call(_: Any, context: Context) -> Any:  # noqa: ANN401 - the request iterator, unused
            return await inner(await self.message_of(context), context)

        return call

    def stop_requests(self) -> None:
        """Refuse the single requests whose message has not come to its end. For a drain, which would wait for them."""
        words = "the server is shutting down, and the message had not come to its end; send it to another one"
        for reading in [each for account in self.accounts.values() for each in account.calls if each.is_single]:
            reading.refuse(NotReadyError(words))

    def refusing(self, code: grpc.StatusCode, message: str) -> Handler:
        """Return what refuses calls unread; what has come of their messages is known to go with them."""

        async def refuse(_: Any, context: Context) -> NoReturn:  # noqa: ANN401 - the request iterator, unused
            reading = self.begin(context)
            try:
                await context.abort(code, message)
            finally:
                self.end(reading)

        return refuse

    async def message_of(self, context: Context) -> bytes:
        """Return the one message of a call. Aborts the call if it does not come."""
        reading = self.begin(context, is_single=True)
        account = reading.account
        message: bytes | None = None
        try:
            reserved = self.gate.enter(account) or await self._wait(reading)
            if reserved:
                try:
                    message = await self.read(reading, context)
                finally:
                    self.gate.leave(account, reserved, None if message is None else len(message))
            reading.has_come = message is not None
        finally:
            self.end(reading)
        if message is None:
            await _refuse(reading, context)
            raise asyncio.CancelledError
        return message


async def _refuse(reading: Reading, context: Context) -> None:
    """End a call that has no message. Raises AbortError, unless the call has ended already."""
    try:
        if reading.refusal is not None:
            await context.abort(INFERENCE_STATUS[reading.refusal.outcome], reading.refusal.message)
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the call has no message; a request is one message")
    except grpc.aio.InternalError:  # gRPC has refused it, or its client has left
        pass

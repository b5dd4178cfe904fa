"""Messages in reception: their connections, their bytes here, and the way to end them.

gRPC does not report how much of a message has come. But the kernel counts the bytes that a connection has brought, and
the readers count the bytes that became messages: the difference is in reception. It is known by connection, not by call
(docs/adr/0116).

Theory of operation
    The event loop's thread owns `Account` and `Reading`: a few additions for each message. The upkeep's thread reads
    their numbers, and owns the `Tally` of each account.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc

from forebay_server.service.errors import ServiceError
from forebay_server.service.frontend.connections import Address, address_of

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Account:
    """The event loop's data about one connection; or about all connections to the unix socket, which have one name.

    Attributes:
        peer: as `ServicerContext.peer()` names it.
        address: of a TCP connection.
        calls: open calls.
        begun: number of calls so far.
        delivered_bytes: of all messages that were received.
        messages: number of these.
        abandoned: calls that ended, but for single ones whose message has come; taken by the upkeep. Of TCP alone.
        usual_bytes: expected size of the next message, from earlier ones.
        reserved: single calls that are let in, see `gate`.
    """

    def __init__(self, peer: str, usual_bytes: int) -> None:
        self.peer = peer
        self.address: Address | None = address_of(peer)
        self.calls: set[Reading] = set()
        self.begun = self.delivered_bytes = self.messages = 0
        self.abandoned: list[Reading] = []
        self.usual_bytes = usual_bytes
        self.reserved = 0
        self.tally = Tally()

    @property
    def shown_address(self) -> str:
        """The client's address for people, `host:port`; `unix` for the unix socket."""
        if self.address is None:
            return "unix"
        host, port = self.address
        return f"[{host}]:{port}" if host.version == 6 else f"{host}:{port}"

    def begin(self, reading: "Reading") -> None:
        """Record a call."""
        self.calls.add(reading)
        self.begun += 1

    def end(self, reading: "Reading") -> None:
        """Record the end of a call."""
        self.calls.discard(reading)
        if self.address is not None and not reading.has_come:
            self.abandoned.append(reading)

    def take(self, nbytes: int) -> None:
        """Count a message."""
        self.delivered_bytes += nbytes
        self.messages += 1


def _nothing() -> None:
    pass


class Reading:
    """Reads one call's messages; can be stopped from outside. Owner: the event loop's thread.

    Attributes:
        is_single: there is one message, and it has begun with the call.
        is_reading: whether it is waiting for a message.
        reads: number of messages that have come.
        is_stopped: whether reading has ended.
        refusal: the error that ends the call, set by `refuse`.
        on_refused: called by `refuse`, for a caller that waits before it reads.
        has_come: whether the one message of a single call has come. Unknown for a stream: gRPC ends one whose message
            is too large as if its client had half-closed.
        seen: for the upkeep: `reads` at its last check.
        since_ns: for the upkeep: start of the wait for the same message.
        brought_bytes: for the upkeep: bytes that the connection had brought when the call began.
    """

    __slots__ = (
        "account",
        "brought_bytes",
        "has_come",
        "is_reading",
        "is_single",
        "is_stopped",
        "on_refused",
        "reads",
        "refusal",
        "seen",
        "since_ns",
        "task",
    )

    def __init__(self, account: Account, *, is_single: bool = False) -> None:
        self.account = account
        self.is_single = is_single
        self.is_reading = self.is_stopped = self.has_come = False
        self.reads = 0
        self.refusal: ServiceError | None = None
        self.on_refused: Callable[[], object] = _nothing
        self.seen = -1
        self.since_ns = 0
        self.brought_bytes = -1
        self.task: asyncio.Task[Any] | None = None  # while it waits

    def stop(self) -> None:
        """End the current wait, as if the client had half-closed. Idempotent."""
        if self.is_stopped:
            return  # a second cancel would look like the client's own
        self.is_stopped = True
        if self.task is not None:
            self.task.cancel()

    def refuse(self, error: ServiceError) -> None:
        """Stop, with an error for the client."""
        if not self.is_stopped:
            self.refusal = error
        self.stop()
        self.on_refused()

    async def read(self, context: Context) -> bytes | None:
        """Return the next message, or None when the client half-closed or reading was stopped."""
        if self.is_stopped:
            return None
        self.task = asyncio.current_task()
        self.is_reading = True
        try:
            message = await context.read()
        except asyncio.CancelledError:
            if self.was_stopped():
                return None
            raise
        finally:
            self.is_reading = False
            self.task = None
        if message is grpc.aio.EOF:  # type: ignore[attr-defined]  # not in the stubs
            return None
        self.reads += 1
        account = self.account
        account.delivered_bytes += len(message)
        account.messages += 1
        return message  # type: ignore[no-any-return]  # bytes: nothing deserializes

    def was_stopped(self) -> bool:
        """Whether the cancellation that has just come was by `stop`, not by the client; if so, undo it."""
        return self.is_stopped and self.task is not None and self.task.uncancel() == 0


@dataclass(frozen=True, slots=True)
class Allowance:
    """Bytes that a connection may bring without a message: frames' headers, records of TLS, metadata, pings.

    More than honest clients need, because bytes beyond it count as messages that do not end.
    """

    share_of_bytes: float = 0.03
    bytes_per_message: int = 128
    bytes_per_call: int = 4096
    bytes_per_s: int = 128
    bytes_at_once: int = 16 << 10  # the received bytes may include some of this


class Tally:
    """The bytes of one connection in reception. Owner: the upkeep's thread. Pure.

    Attributes:
        held_bytes: estimate of bytes in reception: never too high for a client that keeps to `Allowance`.
        unread_bytes: upper bound of those that wait because the server does not read them.
        most_bytes: upper bound for any client.
        stuck_ns: time for which bytes have been here that became no message; 0 if all may have become one. Later
            messages count for them, so that a connection that brings messages is never stuck.
        received_bytes: bytes that the connection had brought at the last check.
    """

    def __init__(self, allowance: Allowance = Allowance()) -> None:
        self.held_bytes = self.unread_bytes = self.most_bytes = self.stuck_ns = 0
        self._allowance = allowance
        self.received_bytes = 0
        self._delivered = self._messages = self._begun = self._told_late = 0
        self._looked_ns: int | None = None
        self._mark: tuple[int, int, int] | None = None  # time, held and delivered bytes then

    @property
    def own_bytes(self) -> int:
        """Held bytes that the client must end."""
        return self.held_bytes - self.unread_bytes

    @property
    def burden(self) -> tuple[int, int]:
        """Byte-nanoseconds for which it has held stuck bytes; if there are none, the held bytes."""
        return self.held_bytes * self.stuck_ns, self.held_bytes

    def note(self, account: Account, received_bytes: int, largest_bytes: int, window_bytes: int, now_ns: int) -> None:
        """Process the numbers at one time.

        Args:
            account: its counts; its abandoned calls are taken.
            received_bytes: of the connection, from its beginning.
            largest_bytes: that a message may have.
            window_bytes: bytes that may come before the server reads.
            now_ns: the current time.
        """
        is_same = received_bytes >= self.received_bytes  # otherwise it is another connection with the same name
        came = received_bytes - self.received_bytes if is_same else received_bytes
        delivered, messages, begun = account.delivered_bytes, account.messages, account.begun
        became = delivered - self._delivered
        allowance = self._allowance
        elapsed_s = 0.0 if self._looked_ns is None else (now_ns - self._looked_ns) / 1e9
        allowed = int(became * allowance.share_of_bytes + elapsed_s * allowance.bytes_per_s)
        allowed += (messages - self._messages) * allowance.bytes_per_message
        allowed += (begun - self._begun) * allowance.bytes_per_call
        overhead = allowed  # bytes forgiven below may hide others: this counts for `held_bytes` alone
        # bytes that a client sends before it sees the end of its call
        allowed += min(came, self._told_late * window_bytes)
        told_late = 0
        while account.abandoned:
            brought = account.abandoned.pop().brought_bytes
            since = received_bytes - brought if brought >= 0 else came
            allowed += min(largest_bytes, max(0, since))  # its received bytes have gone with it
            told_late += 1
        calls = tuple(account.calls)
        # A call has at most the bytes that its connection has brought since it began, and at most one message.
        oldest = min((max(0, call.brought_bytes) for call in calls), default=received_bytes)
        limit = min(received_bytes - oldest, len(calls) * (largest_bytes + window_bytes))
        self.held_bytes = min(limit, max(0, self.held_bytes + came - became - allowed))
        self.most_bytes = min(limit, max(0, self.most_bytes + came - became - overhead))
        self.received_bytes = received_bytes
        self._delivered, self._messages, self._begun = delivered, messages, begun
        self._told_late = told_late
        self._looked_ns = now_ns
        unread_bytes = sum(not call.is_reading for call in calls) * window_bytes
        self.unread_bytes = min(self.held_bytes, unread_bytes)
        self._mark_what_is_here(allowance.bytes_at_once + unread_bytes, now_ns)

    def _mark_what_is_here(self, least_bytes: int, now_ns: int) -> None:
        if self.held_bytes <= least_bytes:
            self._mark = None
        elif self._mark is None or self._delivered - self._mark[2] >= self._mark[1] - least_bytes:
            self._mark = (now_ns, self.held_bytes, self._delivered)
        self.stuck_ns = 0 if self._mark is None else now_ns - self._mark[0]

    def forget(self) -> None:
        """Reset: all held bytes have gone."""
        self.held_bytes = self.unread_bytes = self.most_bytes = self.stuck_ns = 0
        self._mark = None


def heaviest(
    accounts: list[Account], budget_bytes: int, held: Callable[[Account], int], weight: Callable[[Account], Any]
) -> list[Account]:
    """Return the accounts to end so that the others hold no more than three quarters of a budget.

    Args:
        accounts: all.
        budget_bytes: bytes that they may hold together.
        held: returns the bytes of one.
        weight: the heaviest go first.
    """
    total = sum(map(held, accounts))
    if total <= budget_bytes:
        return []
    chosen = []
    for account in sorted(accounts, key=weight, reverse=True):
        if total <= budget_bytes * 3 // 4:
            break
        chosen.append(account)
        total -= held(account)
    return chosen

"""Decides which single calls may receive their message: those for whose messages there is room. The others wait.

A call that is not let in is not read, so that HTTP/2 holds its client back. The size of its message is unknown before
it is read; earlier messages of its connection give an estimate. One call of each connection is always let in: a
connection that fills the room with messages that do not end takes the others' breadth, not their place in the queue.

Where messages may be compressed, a gate is strict: the inflated size of a message is unknown before it is read, and a
client that has sent small ones may send a large one. So each message reserves the room of the largest, no call is let
in beyond the room, and a message that has come keeps its room until its call has been answered.

Owner: the event loop's thread.
"""

import asyncio
from collections import deque

from forebay_server.service.frontend.reception.reading import Account


class ReceptionGate:
    """See the module.

    Args:
        room_bytes: for all messages that are let in; for the largest at least.
        is_strict: whether it is never exceeded.
    """

    def __init__(self, room_bytes: int, *, is_strict: bool = False) -> None:
        self.is_strict = is_strict
        self._room_bytes = room_bytes
        self._reserved_bytes = 0
        # in order of waiting time: the longest waiting first
        self._waiting: dict[Account, deque[asyncio.Future[int]]] = {}

    @property
    def waiting_count(self) -> int:
        """Number of waiting calls."""
        return sum(map(len, tuple(self._waiting.values())))

    def enter(self, account: Account) -> int:
        """Let a call in and return its reservation; 0 if it has to wait."""
        if (account.reserved or self.is_strict) and (self._waiting or self._is_full_for(account)):
            return 0
        account.reserved += 1
        self._reserved_bytes += account.usual_bytes
        return account.usual_bytes

    async def wait(self, account: Account) -> int:
        """Return the reservation once there is room."""
        waiter: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(account, deque()).append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.leave(account, waiter.result(), None)
            raise

    def leave(self, account: Account, reserved_bytes: int, nbytes: int | None) -> None:
        """Return the room; of a strict gate, the part that the message does not need.

        Args:
            account: of the connection.
            reserved_bytes: result of `enter` or `wait`.
            nbytes: of the message; None if none came. From a strict gate it is returned with `forget`.
        """
        account.reserved -= 1
        self._reserved_bytes -= reserved_bytes
        if self.is_strict:
            self._reserved_bytes += nbytes or 0
        elif nbytes is not None:
            account.usual_bytes = max(nbytes, account.usual_bytes >> 1, 1)
        if self._waiting and not account.reserved:
            self._let_in(account)
        if self._waiting:
            self._let_others_in()

    def forget(self, nbytes: int) -> None:
        """Return the room of a message that a strict gate kept."""
        self._reserved_bytes -= nbytes
        self._let_others_in()

    def _is_full_for(self, account: Account) -> bool:
        return self._reserved_bytes + account.usual_bytes > self._room_bytes

    def _let_others_in(self) -> None:
        while self._waiting and self._let_in(next(iter(self._waiting))):
            pass

    def _let_in(self, account: Account) -> bool:
        """Let the next call of an account in; return False if there is no room."""
        waiters = self._waiting.get(account)
        if waiters is None:
            return False
        while waiters and waiters[0].done():  # its client has gone
            waiters.popleft()
        if waiters:
            if (account.reserved or self.is_strict) and self._is_full_for(account):
                return False
            account.reserved += 1
            self._reserved_bytes += account.usual_bytes
            waiters.popleft().set_result(account.usual_bytes)
        del self._waiting[account]
        if waiters:
            self._waiting[account] = waiters  # behind the others
        return True

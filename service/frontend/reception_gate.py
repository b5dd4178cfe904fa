"""Which single calls may have their message received: those for whose messages there is room. The others wait.

A call that is not let in is not read, so that HTTP/2 holds its client back. How large its message will be is not
known before it is read; those before it on its connection say. One call of each connection is let in always: a
connection that fills the room with messages that do not end takes the others' breadth, not their turn.

Owner: the event loop's thread.
"""

import asyncio
from collections import deque

from forebay_server.service.frontend.reception import Account


class ReceptionGate:
    """See the module.

    Args:
        room_bytes: for all messages that are let in.
    """

    def __init__(self, room_bytes: int) -> None:
        self._room_bytes = room_bytes
        self._reserved_bytes = 0
        self._waiting: dict[Account, deque[asyncio.Future[int]]] = {}  # in order: who waits longest for a turn

    @property
    def waiting_count(self) -> int:
        """How many calls wait."""
        return sum(map(len, tuple(self._waiting.values())))

    def enter(self, account: Account) -> int:
        """Let a call in and return what it reserved; 0 if it has to wait."""
        if account.reserved and (self._waiting or self._reserved_bytes + account.usual_bytes > self._room_bytes):
            return 0
        account.reserved += 1
        self._reserved_bytes += account.usual_bytes
        return account.usual_bytes

    async def wait(self, account: Account) -> int:
        """Return what was reserved once there is room."""
        turn: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(account, deque()).append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave(account, turn.result(), None)
            raise

    def leave(self, account: Account, reserved_bytes: int, nbytes: int | None) -> None:
        """Give room back.

        Args:
            account: whose.
            reserved_bytes: what `enter` or `wait` returned.
            nbytes: of the message; None if none came.
        """
        account.reserved -= 1
        self._reserved_bytes -= reserved_bytes
        if nbytes is not None:
            account.usual_bytes = max(nbytes, account.usual_bytes >> 1, 1)
        if self._waiting:
            if not account.reserved:
                self._let_in(account)
            while self._waiting and self._let_in(next(iter(self._waiting))):
                pass

    def _let_in(self, account: Account) -> bool:
        """Give the next call of an account its turn; False if there is no room."""
        turns = self._waiting.get(account)
        if turns is None:
            return False
        while turns and turns[0].done():  # its client has gone
            turns.popleft()
        if turns:
            if account.reserved and self._reserved_bytes + account.usual_bytes > self._room_bytes:
                return False
            account.reserved += 1
            self._reserved_bytes += account.usual_bytes
            turns.popleft().set_result(account.usual_bytes)
        del self._waiting[account]
        if turns:
            self._waiting[account] = turns  # behind the others
        return True

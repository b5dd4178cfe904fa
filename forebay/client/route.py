"""The way of one stream over the servers: those that it may try next, and how the end of a call changes that.

Owner: the event loop.
"""

from typing import TYPE_CHECKING, NamedTuple

from forebay.addresses import Address
from forebay.client.channel import Metadata
from forebay.client.errors import StreamRefusedError
from forebay.client.retry import CallEnd, NextStep
from forebay.client.servers import Servers
from forebay.wire import frames_pb2 as wire

if TYPE_CHECKING:
    from forebay.client.channel import StreamCall

LEAST_ATTEMPT_S = 1.0  # for one of several servers to answer Open
ATTEMPT_KEY = "forebay-attempt"
MOST_SENT_ON = 3
"""Attempts that servers with too much to do may send on; the next one they take."""


class Pace(NamedTuple):
    """The next call, as the back-off needs to know it.

    Attributes:
        has_failed: whether to back off.
        hint_ms: the server's advice when to come back.
    """

    has_failed: bool
    hint_ms: int


class Route:
    """See the module. Of several servers, one that fails or refuses makes room for the next one at once."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._address: Address | None = None  # of the latest call's server
        self._refusals: dict[Address, CallEnd] = {}  # since the stream was last open
        self._attempts = 0  # in the same time
        self._left: Address | None = None  # the server that asked the stream to go elsewhere, until it is open again

    @property
    def address(self) -> str:
        """Of the latest call's server."""
        return str(self._address or "")

    @property
    def addresses(self) -> str:
        """Of all servers, as the user gave them."""
        return self._servers.address

    def attempt_limit_s(self, connect_timeout_s: float) -> float:
        """Return how long one server may take to answer Open: all of the time if there is one, else a share of it."""
        count = self._servers.count
        return connect_timeout_s if count == 1 else max(LEAST_ATTEMPT_S, connect_timeout_s / (count + 1))

    async def call(self, metadata: Metadata) -> "StreamCall":
        """Start the next call. Raises OSError: a certificate file cannot be read.

        Where every server has too much to do, the one that asked the stream to go gets it back: none gets more then.
        """
        self._attempts += 1
        attempt, wanted = self._attempts, None
        if self._servers.count > 1 or attempt > 1:  # else there is no other server that would take it
            if attempt > 1 and not self._servers.has_ready(self._refusals):
                attempt = MOST_SENT_ON + attempt
            wanted = self._left if attempt > MOST_SENT_ON else None
            metadata = (*metadata, (ATTEMPT_KEY, str(attempt)))
        call, self._address = await self._servers.call(metadata, self._refusals, wanted)
        return call

    def opened(self) -> None:
        """Record that the server opened the stream."""
        self._refusals.clear()
        self._attempts, self._left = 0, None
        if self._address is not None:
            self._servers.opened(self._address)

    def asked_to_leave(self, call: "StreamCall", reason: int) -> None:
        """Record that the server asks the stream to reconnect.

        Args:
            call: of the stream.
            reason: DRAIN and ELSEWHERE mean another server, ELSEWHERE and REBALANCE another connection.
        """
        if self._address is not None and reason == wire.Reconnect.REASON_DRAIN:
            self._servers.going(self._address, "it is going away")
        if self._address is not None and reason == wire.Reconnect.REASON_ELSEWHERE:
            self._servers.going(self._address, "it has too much to do")
            self._left = self._address
        if reason != wire.Reconnect.REASON_DRAIN:
            self._servers.leave(call)

    def ended(self, end: CallEnd, *, was_open: bool) -> Pace:
        """Record the end of the call and return the pace of the next one.

        Raises:
            StreamRefusedError: no server is left that may take the stream.
        """
        step = end.next_step
        if self._address is not None and step is NextStep.REFUSED:
            self._refusals[self._address] = end
            if was_open or not self._servers.has_other(self._refusals):
                raise StreamRefusedError(end.code, end.reason)
        elif self._address is not None and step is NextStep.RETRY:
            self._servers.failed(self._address, end.words, end.hint_ms)
            if self._address == self._left:  # it does not take the stream back, or has gone
                self._left = None
        if self._servers.has_ready(self._refusals):
            return Pace(was_open and step is NextStep.RETRY, 0)
        return Pace(step is not NextStep.REOPEN, end.hint_ms)

    def refuse(self) -> None:
        """Raise the latest refusal, if there is one: it says more than the servers that could not be reached."""
        if self._refusals:
            end = list(self._refusals.values())[-1]
            raise StreamRefusedError(end.code, end.reason)

"""When refusals of a connection's requests are sent: not faster than the client can use them.

A client that sends again as soon as it is refused takes a core of the server for being refused: 400 calls of one
connection were refused 1,000 times a second, and cameras beside them lost what they needed for being served. So the
refusals of one connection leave at most `REFUSALS_PER_S` times a second; a client whose requests are refused now and
then gets its answer at once. A refusal frees everything that it held before it waits.

Owner: the event loop's thread. Why: docs/adr/0123.
"""

from forebay_server.service.clock import Clock
from forebay_server.service.frontend.statuses import StatusError

REFUSALS_PER_S = 200
MOST_DELAY_NS = 1_000_000_000
MOST_PEERS = 1024  # remembered; those that owe nothing are forgotten first


class RefusedError(StatusError):
    """A request is refused because the server is overloaded."""


class RefusalPace:
    """See the module. All clients of the unix socket are one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._free_ns: dict[str, int] = {}  # by peer: when its next refusal may leave

    def delay_ns(self, peer: str, remaining_s: float | None) -> int:
        """Count a refusal, and return how long its answer waits: half of the rest of the call's deadline at most.

        Args:
            peer: the connection.
            remaining_s: until the deadline; None without one.
        """
        now_ns = self._clock.now_ns()
        if len(self._free_ns) >= MOST_PEERS:
            self._free_ns = {other: free_ns for other, free_ns in self._free_ns.items() if free_ns > now_ns}
        most_ns = MOST_DELAY_NS if remaining_s is None else max(0, min(MOST_DELAY_NS, int(remaining_s * 5e8)))
        leaves_ns = max(now_ns, self._free_ns.get(peer, 0))
        self._free_ns[peer] = min(leaves_ns + 1_000_000_000 // REFUSALS_PER_S, now_ns + MOST_DELAY_NS)
        return min(leaves_ns - now_ns, most_ns)

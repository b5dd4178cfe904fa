"""The pace of reading one connection's messages, where they may be compressed: 16 KB sent can be 16 MB here.

gRPC inflates a message before it hands it over and does not say that it did, so that the pace holds for all messages
by the bytes that they have. Beyond it nothing is read, so that HTTP/2 pushes back. Owner: the event loop's thread.
"""

import asyncio

from forebay_server.service.clock import Clock

MOST_PEERS = 1024  # remembered peers; those without debt are forgotten first


class Pace:
    """See the module.

    Args:
        bytes_per_s: of one connection; all clients of the unix socket are one.
        clock: source of monotonic nanoseconds.
    """

    def __init__(self, bytes_per_s: int, clock: Clock) -> None:
        self._bytes_per_s = bytes_per_s
        self._clock = clock
        self._free_ns: dict[str, int] = {}  # by peer: the time at which its sent bytes are within the pace

    def count(self, peer: str, nbytes: int) -> None:
        """Count a message."""
        now_ns = self._clock.now_ns()
        if len(self._free_ns) >= MOST_PEERS:
            self._free_ns = {other: free_ns for other, free_ns in self._free_ns.items() if free_ns > now_ns}
        begin_ns = max(now_ns, self._free_ns.get(peer, 0))
        self._free_ns[peer] = begin_ns + nbytes * 1_000_000_000 // self._bytes_per_s

    def delay_ns(self, peer: str) -> int:
        """Return the delay before the next message is read."""
        return max(0, self._free_ns.get(peer, 0) - self._clock.now_ns())

    async def wait(self, peer: str) -> None:
        """Return when the next message may be read."""
        while (delay_ns := self.delay_ns(peer)) > 0:
            await asyncio.sleep(delay_ns / 1e9)

"""How fast the messages of one connection are taken, where they may be compressed: 16 KB sent can be 16 MB here.

gRPC inflates a message before it hands it over and does not say that it did, so that the pace holds for all messages
by the bytes that they have. A message beyond it waits before anybody looks at it, and its stream is not read
meanwhile, so that HTTP/2 pushes back. Owner: the event loop's thread.
"""

import asyncio

from forebay_server.service.clock import Clock

MOST_PEERS = 1024  # remembered; those that owe nothing are forgotten first


class Pace:
    """See the module.

    Args:
        bytes_per_s: of one connection; all clients of the unix socket are one.
        clock: time.
    """

    def __init__(self, bytes_per_s: int, clock: Clock) -> None:
        self._bytes_per_s = bytes_per_s
        self._clock = clock
        self._free_ns: dict[str, int] = {}  # by peer: when what it has sent has had its time

    def delay_ns(self, peer: str, nbytes: int) -> int:
        """Count a message and return how long it has to wait."""
        now_ns = self._clock.now_ns()
        if len(self._free_ns) >= MOST_PEERS:
            self._free_ns = {other: free_ns for other, free_ns in self._free_ns.items() if free_ns > now_ns}
        begin_ns = max(now_ns, self._free_ns.get(peer, 0))
        self._free_ns[peer] = begin_ns + nbytes * 1_000_000_000 // self._bytes_per_s
        return begin_ns - now_ns

    async def wait(self, peer: str, nbytes: int) -> None:
        """Count a message and return when it may be looked at."""
        delay_ns = self.delay_ns(peer, nbytes)
        if delay_ns > 0:
            await asyncio.sleep(delay_ns / 1e9)

"""The permits of one front-end process: its part of the server's, and more while the others leave some.

Theory of operation
    Each front-end process writes how many permits it has given out where the others read it (`PermitCounts`). At each
    take it may have out as many as it has buffers, and no more than the others leave of the server's number; but its
    equal part it may always have, so that a process whose neighbours are busy never waits for them. So all together may
    for a moment have out more than the server's number, and never more than there are buffers. Among the streams of the
    process the permits are shared as ever.

    A count is written under the lock that guards the permits of its process, so that it is never older than the last
    take or return: a process that falls idle would leave a number that is too high for as long as it stays idle, and
    keep permits from its neighbours.

Thread: any.
"""

from forebay_server.service.clock import Clock
from forebay_server.service.group.shared_counts import PermitCounts
from forebay_server.service.pipeline.permits import Permits, no_permit
from forebay_server.service.pipeline.shares import Share


class GroupPermits(Permits):
    """See the module's theory of operation.

    Args:
        counts: of all front-end processes.
        front_end: index of this one.
        front_ends: how many there are.
        permits: of the server.
        slots: buffers of this process for each model version.
        clock: source of monotonic nanoseconds.
    """

    def __init__(
        self, counts: PermitCounts, front_end: int, front_ends: int, permits: int, slots: int, clock: Clock
    ) -> None:
        super().__init__(slots, clock)
        self._counts = counts
        self._front_end = front_end
        self._permits = permits
        self._least = min(slots, max(1, permits // front_ends))
        counts.write(front_end, 0)  # the one before this has died

    def take(self, share: Share | None = None) -> Share:
        """See `Permits.take`."""
        share = share or self._unnamed
        shares, counts, own = self._shares, self._counts, self._front_end
        now_ns = self._clock.now_ns()
        with self._lock:
            left = self._permits - counts.total() + counts.read(own)
            limit = min(self.count, max(self._least, left))
            if limit != shares.count:
                shares.resize(limit)
            is_taken = shares.take(share, now_ns)
            counts.write(own, shares.in_use)
        if not is_taken:
            raise no_permit()
        return share

    def give_back(self, share: Share) -> None:
        """See `Permits.give_back`."""
        with self._lock:
            self._shares.give_back(share)
            self._counts.write(self._front_end, self._shares.in_use)

"""The permits: how many frames the server may hold before execution, and for whom.

Every frame of every model takes one at admission and gives it back when its inputs are no longer needed. Who may take
how many is decided by `service.pipeline.shares`.
"""

import threading
from collections import deque

from forebay_server.service.clock import Clock, MonotonicClock
from forebay_server.service.errors import OverloadedError
from forebay_server.service.pipeline.shares import Share, Shares

RETRY_AFTER_MS = 100


class Permits:
    """A number of permits and the shares that streams have of them. Thread: any.

    Takes are rare enough for a lock. A permit is given back, by any thread of a pipeline, without a lock: the next take
    counts it.

    Args:
        count: how many there are.
        clock: source of monotonic nanoseconds; tests pass a manual one.
    """

    def __init__(self, count: int, clock: Clock | None = None) -> None:
        self.count = count
        self._clock = clock or MonotonicClock()
        self._lock = threading.Lock()
        self._shares = Shares(count)
        self._returned: deque[Share] = deque()
        self._unnamed = Share()

    @property
    def taken_count(self) -> int:
        """How many are out."""
        return max(0, self._shares.in_use - len(self._returned))

    def take(self, share: Share | None = None) -> Share:
        """Take a permit and return whose it is, to be given back.

        Args:
            share: of the stream that the permit is for; None for requests without a stream.

        Raises:
            OverloadedError: all are out, or those that are not are for others.
        """
        share = share or self._unnamed
        returned, shares = self._returned, self._shares
        now_ns = self._clock.now_ns()
        with self._lock:
            while returned:
                shares.give_back(returned.popleft())
            if shares.take(share, now_ns):
                return share
        raise no_permit()

    def give_back(self, share: Share) -> None:
        """Give one back that was taken for `share`."""
        self._returned.append(share)

    def leave(self, share: Share) -> None:
        """Give the promise of a stream that has ended to the others; permits that it holds come back as before."""
        with self._lock:
            self._shares.leave(share)


def no_permit() -> OverloadedError:
    """Return the answer to a client for which there is no permit."""
    return OverloadedError(
        "the server holds as many frames as it may, and of this client its share; send fewer or slower",
        retry_after_ms=RETRY_AFTER_MS,
    )

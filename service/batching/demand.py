"""How much is asked for, and who got how much of it: the load averages and the fairness counters.

Rates are exponentially weighted rows per nanosecond: a fast one over a few batches, a sustained one over twenty times
that. Shares are rows served per stream, fading over ten seconds. A stream that joins late counts as if it had been
served what the least served were, so that it gets a fair share and no more (docs/adr/0115).

Owner: the former's thread. Not thread-safe.
"""

import math
from collections.abc import Sequence
from typing import ClassVar

from forebay_server.service.batching.constants import (
    FASTEST_WINDOW_NS,
    SHARE_WINDOW_NS,
    SUSTAINED_WINDOWS,
    WINDOW_BATCHES,
)


class StreamShare:
    """Rows served on one stream, fading; of a share of several streams, on each of them."""

    __slots__ = ("served", "touched_ns", "weight")

    def __init__(self, now_ns: int, weight: int = 1, served: float = 0.0) -> None:
        self.weight = weight
        self.served = served
        self.touched_ns = now_ns

    def fade(self, now_ns: int) -> None:
        """Let the counter fade to now."""
        elapsed_ns = now_ns - self.touched_ns
        if elapsed_ns > 0:
            self.served *= math.exp(-elapsed_ns / SHARE_WINDOW_NS)
            self.touched_ns = now_ns

    def with_picked(self, rows: int) -> float:
        """Return what was served, `rows` that are being picked counted as well."""
        return self.served + rows / self.weight


class Demand:
    """Arrival rates and shares of one former.

    Attributes:
        sustained_rate: rows per nanosecond over a longer time, as of the last arrival.
    """

    MEMORY_NS: ClassVar[int] = 3 * SHARE_WINDOW_NS

    def __init__(self, largest_batch_ns: float) -> None:
        self._window_ns = max(float(FASTEST_WINDOW_NS), WINDOW_BATCHES * largest_batch_ns)
        self._sustained_window_ns = SUSTAINED_WINDOWS * self._window_ns
        self._rate = 0.0
        self.sustained_rate = 0.0
        self._last_ns = 0
        self._least_served = 0.0

    def join(self, now_ns: int, weight: int) -> StreamShare:
        """Return the share of a stream that was not known."""
        return StreamShare(now_ns, weight, self._least_served)

    def offer(self, share: StreamShare, rows: int, now_ns: int) -> None:
        """Count an arrival."""
        elapsed_ns = max(0, now_ns - self._last_ns)
        self._last_ns = now_ns
        self._rate = self._rate * math.exp(-elapsed_ns / self._window_ns) + rows / self._window_ns
        self.sustained_rate = (
            self.sustained_rate * math.exp(-elapsed_ns / self._sustained_window_ns) + rows / self._sustained_window_ns
        )
        share.fade(now_ns)

    def serve(self, shares: Sequence[tuple[StreamShare, int]], now_ns: int) -> None:
        """Count the rows of a batch, by whose they are."""
        least_served = math.inf
        for share, _ in shares:
            share.fade(now_ns)
            least_served = min(least_served, share.served)
        self._least_served = least_served if shares else 0.0
        for share, rows in shares:
            share.served += rows / share.weight

    def take_back(self, share: StreamShare, rows: int, now_ns: int) -> None:
        """Count rows no longer as served: their batch was taken back."""
        share.fade(now_ns)
        share.served = max(0.0, share.served - rows / share.weight)

    def rate(self, now_ns: int) -> float:
        """Return rows per nanosecond of late."""
        return self._rate * math.exp(-max(0, now_ns - self._last_ns) / self._window_ns)

    def is_forgotten(self, share: StreamShare, now_ns: int) -> bool:
        """Whether a stream has been silent so long that its counters mean nothing."""
        return now_ns - share.touched_ns > self.MEMORY_NS

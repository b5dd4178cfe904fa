"""How much is asked for, and who got how much of it: the load averages and the fairness counters.

Rates are exponentially weighted rows per nanosecond: a fast one over a few batches, a sustained one over twenty times
that. Shares are rows offered and served per stream, both fading over ten seconds, so that a stream that joins late gets
a fair share and no more.

Owner: the former's thread. Not thread-safe.
"""

from math import exp
from typing import ClassVar

FASTEST_WINDOW_NS = 50_000_000
WINDOW_BATCHES = 3
SUSTAINED_WINDOWS = 20
SHARE_WINDOW_NS = 10_000_000_000


class StreamShare:
    """Rows offered and served on one stream, fading."""

    __slots__ = ("offered", "served", "touched_ns")

    def __init__(self, now_ns: int) -> None:
        self.offered = 0.0
        self.served = 0.0
        self.touched_ns = now_ns

    def fade(self, now_ns: int) -> None:
        """Let both counters fade to now. Their ratio does not change."""
        elapsed_ns = now_ns - self.touched_ns
        if elapsed_ns > 0:
            factor = exp(-elapsed_ns / SHARE_WINDOW_NS)
            self.offered *= factor
            self.served *= factor
            self.touched_ns = now_ns

    def ratio(self, picked_rows: int = 0) -> float:
        """Return the share of what it offered that was served, `picked_rows` counted as served."""
        return (self.served + picked_rows) / self.offered if self.offered > 0.0 else 0.0


class Demand:
    """Arrival rates and shares of one former."""

    MEMORY_NS: ClassVar[int] = 3 * SHARE_WINDOW_NS

    def __init__(self, largest_batch_ns: float) -> None:
        self._window_ns = max(float(FASTEST_WINDOW_NS), WINDOW_BATCHES * largest_batch_ns)
        self._sustained_window_ns = SUSTAINED_WINDOWS * self._window_ns
        self._rate = 0.0
        self._sustained_rate = 0.0
        self._last_ns = 0
        self.offered_rows = 0

    def offer(self, share: StreamShare, rows: int, now_ns: int) -> None:
        """Count an arrival."""
        elapsed_ns = max(0, now_ns - self._last_ns)
        self._last_ns = now_ns
        self._rate = self._rate * exp(-elapsed_ns / self._window_ns) + rows / self._window_ns
        self._sustained_rate = (
            self._sustained_rate * exp(-elapsed_ns / self._sustained_window_ns) + rows / self._sustained_window_ns
        )
        self.offered_rows += rows
        share.fade(now_ns)
        share.offered += rows

    def serve(self, share: StreamShare, rows: int, now_ns: int) -> None:
        """Count rows that go into a batch."""
        share.fade(now_ns)
        share.served += rows

    def take_back(self, share: StreamShare, rows: int, now_ns: int) -> None:
        """Count rows no longer as served: their batch was taken back."""
        share.fade(now_ns)
        share.served = max(0.0, share.served - rows)

    def rate(self, now_ns: int) -> float:
        """Return rows per nanosecond of late."""
        return self._rate * exp(-max(0, now_ns - self._last_ns) / self._window_ns)

    @property
    def sustained_rate(self) -> float:
        """Rows per nanosecond over a longer time, as of the last arrival."""
        return self._sustained_rate

    def is_forgotten(self, share: StreamShare, now_ns: int) -> bool:
        """Whether a stream has been silent so long that its counters mean nothing."""
        return now_ns - share.touched_ns > self.MEMORY_NS

"""How long egress takes: from outputs in host memory to the result handed to the transport.

Theory of operation
    Copying outputs, typed results in the worker pool, the wait for the event loop, building messages: none of it is
    device work, so no cost table knows it, and on a busy machine it makes executed frames late. Results leave
    one after the other. So egress is described like a stage of its own: a result that finds it free takes `mean_ns`
    (`upper_ns` as a rule at most), and each result that queues behind another one takes `interval_ns` more. The front
    end, which sees results leave, reports each one here; `egress_forecast` forecasts the next batch from it.

    Each of the three is the median over the latest eight windows of a tenth of a second: a single stall of the machine
    does not move it, a change shows within half a second. After a second without results they are learnt anew.

    The interval shows only while results wait for each other. A former that believes in a long one forms batches so
    small that none does, and would believe in it for ever. So results that find egress free count as well: one that
    waits takes no longer than they do.

Owner: the event loop's thread. The attributes are numbers that any thread may read.
"""

from collections import deque
from typing import Protocol

from forebay_server.service.batching.constants import EGRESS_WINDOW_NS, EGRESS_WINDOWS, LONGEST_NS, SILENCE_NS


class EgressNumbers(Protocol):
    """The numbers of delivery that the former reads: an `EgressTime`, or several in other processes."""

    @property
    def mean_ns(self) -> int: ...  # noqa: D102
    @property
    def upper_ns(self) -> int: ...  # noqa: D102
    @property
    def interval_ns(self) -> int: ...  # noqa: D102
    @property
    def reached_ns(self) -> int: ...  # noqa: D102
    @property
    def reached_count(self) -> int: ...  # noqa: D102


class EgressTime:
    """See the module's theory of operation.

    Attributes:
        mean_ns: of a result that finds egress free; 0 while nothing is known.
        upper_ns: halfway from there to the longest; at least `mean_ns`.
        interval_ns: between results that wait for each other; 0 while nothing is known.
        reached_ns: when the outputs were readable of the newest batch of which a result has left; 0 before the first.
        reached_count: results of that batch that have left.
    """

    __slots__ = (
        "_base", "_ends_ns", "_interval", "_last_ns", "interval_ns", "mean_ns", "reached_count", "reached_ns",
        "upper_ns",
    )  # fmt: skip

    def __init__(self) -> None:
        self.mean_ns = self.upper_ns = self.interval_ns = 0
        self.reached_ns = self.reached_count = 0
        self._base, self._interval = _Windows(), _Windows()
        self._ends_ns = self._last_ns = 0

    def observe(self, readable_ns: int, left_ns: int, *, is_typical: bool = True) -> None:
        """Note that a result leaves now, or at least waits in egress no longer.

        Args:
            readable_ns: when its outputs were in host memory.
            left_ns: now.
            is_typical: False if it does not leave yet: its client has gone, or it waits for that client or for the
                frame before it, which is no part of egress, and no other result waits for it.
        """
        if readable_ns > self.reached_ns:
            self.reached_ns, self.reached_count = readable_ns, 1
        elif readable_ns == self.reached_ns:
            self.reached_count += 1
        if left_ns >= self._ends_ns:
            self._close_window(left_ns)
        if is_typical and readable_ns > self._last_ns:
            self._base.add(left_ns - readable_ns)
        elif is_typical:
            self._interval.add(left_ns - self._last_ns)
        self._last_ns = left_ns

    def _close_window(self, now_ns: int) -> None:
        if now_ns - self._ends_ns > SILENCE_NS:
            self._base.clear()
            self._interval.clear()
        else:
            if self._base.has_any and not self._interval.has_any:
                self._interval.add(min(self._interval.mean_ns, self._base.open_mean_ns))
            self._base.close()
            self._interval.close()
        self.mean_ns, self.upper_ns = self._base.mean_ns, self._base.upper_ns
        self.interval_ns = self._interval.mean_ns
        self._ends_ns = now_ns + EGRESS_WINDOW_NS


class _Windows:
    """The median over the latest windows of a window's mean, and of the point halfway from there to its longest."""

    __slots__ = ("_count", "_longest_ns", "_means_ns", "_sum_ns", "_uppers_ns", "mean_ns", "upper_ns")

    def __init__(self) -> None:
        self._means_ns: deque[int] = deque(maxlen=EGRESS_WINDOWS)
        self._uppers_ns: deque[int] = deque(maxlen=EGRESS_WINDOWS)
        self.mean_ns = self.upper_ns = 0
        self._count = self._sum_ns = self._longest_ns = 0

    def add(self, took_ns: int) -> None:
        """Count one duration in the open window."""
        took_ns = max(0, min(took_ns, LONGEST_NS))
        self._count += 1
        self._sum_ns += took_ns
        self._longest_ns = max(self._longest_ns, took_ns)

    @property
    def has_any(self) -> bool:
        """Whether the open window has durations."""
        return self._count > 0

    @property
    def open_mean_ns(self) -> int:
        """The mean in the open window, which has durations."""
        return self._sum_ns // self._count

    def close(self) -> None:
        """End the open window and begin another; one without durations does not count."""
        if self._count:
            mean_ns = self._sum_ns // self._count
            self._means_ns.append(mean_ns)
            self._uppers_ns.append((mean_ns + self._longest_ns) // 2)
            self.mean_ns, self.upper_ns = _median(self._means_ns), _median(self._uppers_ns)
        self._count = self._sum_ns = self._longest_ns = 0

    def clear(self) -> None:
        """Forget everything."""
        self._means_ns.clear()
        self._uppers_ns.clear()
        self.mean_ns = self.upper_ns = 0
        self._count = self._sum_ns = self._longest_ns = 0


def _median(values: deque[int]) -> int:
    return sorted(values)[(len(values) - 1) // 2]

"""How long delivery takes in a front-end process, written where the engine process reads it.

Beside the numbers of `service.batching.egress_time` it writes how many results leave in a second, as their weight among
the processes: a running mean over the same windows, forgotten after a second without results.

Owner: the event loop's thread.
"""

from forebay_server.service.batching.constants import EGRESS_WINDOWS, SILENCE_NS
from forebay_server.service.batching.egress_time import EgressTime
from forebay_server.service.group.version_header import VersionHeader


class PublishedEgress(EgressTime):
    """See the module.

    Args:
        header: of the version's memory file.
        front_end: index of this process.
    """

    __slots__ = ("_count", "_front_end", "_header", "_opened_ns", "_results_per_s")

    def __init__(self, header: VersionHeader, front_end: int) -> None:
        super().__init__()
        self._header = header
        self._front_end = front_end
        self._count = self._opened_ns = 0  # results of the open window, and when it began
        self._results_per_s = 0.0
        self._write()

    def observe(self, readable_ns: int, left_ns: int, *, is_typical: bool = True) -> None:
        """See `EgressTime.observe`."""
        ends_ns = self._ends_ns
        super().observe(readable_ns, left_ns, is_typical=is_typical)
        if self._ends_ns != ends_ns:
            self._close_count(left_ns)
        self._count += 1
        self._write()

    def _close_count(self, now_ns: int) -> None:
        took_ns = now_ns - self._opened_ns
        if took_ns > SILENCE_NS or not took_ns:
            self._results_per_s = 0.0
        else:
            found = self._count * 1e9 / took_ns
            before = self._results_per_s
            self._results_per_s = before + (found - before) / EGRESS_WINDOWS if before else found
        self._count, self._opened_ns = 0, now_ns

    def _write(self) -> None:
        self._header.write_egress(
            self._front_end,
            self.mean_ns,
            self.upper_ns,
            self.interval_ns,
            self.reached_ns,
            self.reached_count,
            round(self._results_per_s),
        )

"""How long delivery takes in several front-end processes at once, as one former sees it.

Each front-end process learns its own numbers (`service.batching.egress_time`) and writes them to the header of the
version's memory file. Those count that have delivered within a second of the newest, each with the share of the results
that leave there: a result takes the mean of their times, weighted by these shares. A process delivers its share of a
batch only, and all deliver side by side. So its interval counts by the square of its share: four equal processes have a
quarter of the interval of one, and a process that has all cameras has its own.

The numbers of a process that has died are cleared; those of one that is stopped count for a second beside newer ones.

Thread: the former's.
"""

from collections.abc import Sequence
from typing import NamedTuple

from forebay_server.service.batching.constants import SILENCE_NS
from forebay_server.service.group.version_header import Delivery, VersionHeader


class GroupEgress:
    """Implements `service.batching.egress_time.EgressNumbers`; the attributes are those of `EgressTime`."""

    def __init__(self, header: VersionHeader) -> None:
        self._header = header
        self._seen = b""
        self._merged = _Merged()

    @property
    def mean_ns(self) -> int:
        """Of a result that finds delivery free."""
        return self._now().mean_ns

    @property
    def upper_ns(self) -> int:
        """Halfway from there to the longest."""
        return self._now().upper_ns

    @property
    def interval_ns(self) -> int:
        """Between results that wait for each other, in all processes together."""
        return self._now().interval_ns

    @property
    def reached_ns(self) -> int:
        """When the outputs were readable of the newest batch of which a result has left."""
        return self._now().reached_ns

    @property
    def reached_count(self) -> int:
        """Results of that batch that have left."""
        return self._now().reached_count

    def _now(self) -> "_Merged":
        """Return the numbers of now: a step of the former reads them six times, and they change more rarely."""
        seen = self._header.egress_bytes()
        if seen != self._seen:
            self._seen, self._merged = seen, _merged(self._header.egress())
        return self._merged


class _Merged(NamedTuple):
    mean_ns: int = 0
    upper_ns: int = 0
    interval_ns: int = 0
    reached_ns: int = 0
    reached_count: int = 0


def _merged(numbers: Sequence[Delivery]) -> _Merged:
    newest_ns = max(each.reached_ns for each in numbers)
    active = [each for each in numbers if each.reached_ns and each.reached_ns >= newest_ns - SILENCE_NS]
    if not active:
        return _Merged()
    weights = [max(1, each.results_per_s) for each in active]
    total = sum(weights)
    weighted = list(zip(weights, active, strict=True))
    return _Merged(
        mean_ns=sum(weight * each.mean_ns for weight, each in weighted) // total,
        upper_ns=sum(weight * each.upper_ns for weight, each in weighted) // total,
        interval_ns=sum(weight * weight * each.interval_ns for weight, each in weighted) // (total * total),
        reached_ns=newest_ns,
        reached_count=sum(each.reached_count for each in active if each.reached_ns == newest_ns),
    )

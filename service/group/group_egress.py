"""How long delivery takes in several front-end processes at once, as one former sees it.

Each front-end process learns its own numbers (`service.batching.egress_time`) and writes them to the header of the
version's memory file. Those count that have delivered within a second of the newest: the mean of their times, and an
interval that is as much shorter as there are more of them, because they deliver side by side.

Thread: the former's.
"""

from forebay_server.service.batching.constants import SILENCE_NS
from forebay_server.service.group.memory_file import VersionHeader


class GroupEgress:
    """Implements `service.batching.egress_time.EgressNumbers`."""

    def __init__(self, header: VersionHeader) -> None:
        self._header = header

    @property
    def mean_ns(self) -> int:
        """Of a result that finds delivery free."""
        return _mean([numbers[0] for numbers in self._active()])

    @property
    def upper_ns(self) -> int:
        """Halfway from there to the longest."""
        return _mean([numbers[1] for numbers in self._active()])

    @property
    def interval_ns(self) -> int:
        """Between results that wait for each other, in all processes together."""
        active = self._active()
        return _mean([numbers[2] for numbers in active]) // len(active) if active else 0

    @property
    def reached_ns(self) -> int:
        """When the outputs were readable of the newest batch of which a result has left."""
        return max(numbers[3] for numbers in self._header.egress())

    @property
    def reached_count(self) -> int:
        """Results of that batch that have left."""
        numbers = self._header.egress()
        newest_ns = max(each[3] for each in numbers)
        return sum(each[4] for each in numbers if each[3] == newest_ns)

    def _active(self) -> list[tuple[int, int, int, int, int]]:
        numbers = self._header.egress()
        newest_ns = max(each[3] for each in numbers)
        return [each for each in numbers if each[3] and each[3] >= newest_ns - SILENCE_NS]


def _mean(values: list[int]) -> int:
    return sum(values) // len(values) if values else 0

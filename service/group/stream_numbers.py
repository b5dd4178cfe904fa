"""The numbers by which the engine process knows the streams of a front-end process.

A stream's former has to be the same one at its next request, because it remembers how it was served. So a number is
kept while its stream brings requests, and given up when it has brought none for `KEPT_NS` to twice that, or when so
many others have come; a request in flight keeps it, too. A stream that comes back gets another number.

Owner: the thread that has the link's lock.
"""

from collections.abc import Iterable

from forebay_server.service.group.descriptors import MAX_NUMBER
from forebay_server.service.request import StreamKey

KEPT_NS = 5_000_000_000  # as long as `service.pipeline.shares` remembers a stream
MOST_KEPT = 4096  # at once in one period; twice as many exist


class StreamNumbers:
    """See the module.

    Attributes:
        recent: numbers of the streams that have brought a request lately. Read for every request, hence no method.
    """

    def __init__(self) -> None:
        self.recent: dict[StreamKey, int] = {}
        self._older: dict[StreamKey, int] = {}
        self._next = 1
        self._since_ns = 0

    def is_due(self, now_ns: int) -> bool:
        """Whether `turn_over` should be called."""
        return now_ns - self._since_ns > KEPT_NS or len(self.recent) >= MOST_KEPT

    def add(self, stream: StreamKey) -> tuple[int, bool]:
        """Return the number of a stream that is not among the recent ones, and whether it is a new one."""
        number = self._older.pop(stream, 0)
        is_new = not number
        if is_new:
            number = self._next
            self._next = self._next % MAX_NUMBER + 1
        self.recent[stream] = number
        return number, is_new

    def turn_over(self, now_ns: int, in_flight: Iterable[StreamKey]) -> list[int]:
        """Begin a new period, and return the numbers that are given up.

        Args:
            now_ns: now.
            in_flight: streams of the requests that have not been answered.
        """
        self._since_ns = now_ns
        older, self._older, self.recent = self._older, self.recent, {}
        for stream in in_flight:
            number = older.pop(stream, 0)
            if number:
                self._older[stream] = number
        return list(older.values())

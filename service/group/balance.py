"""Decides when streams are asked to go to other front-end processes, and how many. Pure.

The kernel deals connections out once, by chance, and they stay where they are. After a front-end process has died, all
of its streams are on the others, and the one that takes its place has none. So the engine process counts the streams of
each, and asks some of the busy ones to reconnect: a new connection is dealt out anew.

Theory of operation
    Streams are asked only while the busiest process has much more than an even share: `MUCH` times, and at least
    `LEAST_MORE` streams and a standard deviation of a fair deal more. Then each process asks as many as it has beyond
    an even share, so that asking alone leaves none with less than that. A fair deal gives the busiest of ten processes
    1.45 times its share of 128 streams. Streams stay for days and a process may have a core for its interpreter, so a
    tenth of them move once, when they have just come, and the busiest has 1.2 times its share for good.

    A stream may come back to the process that it left: by chance, or because its client keeps its connection. So each
    request is followed by a pause, and each pause is twice as long as the one before it, up to `LONGEST_PAUSE_NS`.
    It is short again when nothing had to be asked for `CALM` pauses, or when a process was missing meanwhile. So
    streams that do not move are asked about ten times in the first half hour and once in ten minutes then.

    Nothing is decided while a process is missing: its streams would only go to the others. Nor is it while streams that
    were asked are still where they were, those of video up to a keyframe: they would be on the way and yet be asked
    for anew, from the others, so that too many go and some have to come back. Their grace bounds this.
"""

from collections.abc import Sequence
from math import sqrt
from typing import Final, NamedTuple

MUCH: Final = 1.25
LEAST_MORE: Final = 2  # of a few streams, one more is nothing to move them for
FIRST_PAUSE_NS: Final = 2_000_000_000  # until the clients of a process that died have come back
LONGEST_PAUSE_NS: Final = 600_000_000_000
CALM: Final = 4


class Move(NamedTuple):
    """Ask some streams of a front-end process to reconnect.

    Attributes:
        front_end: its number.
        streams: how many.
    """

    front_end: int
    streams: int


class Balance:
    """See the module's theory of operation. Owner: one thread."""

    def __init__(self) -> None:
        self._pause_ns = FIRST_PAUSE_NS
        self._moved_ns = 0
        self._due_ns: int | None = None  # None: a process is missing

    def decide(self, now_ns: int, streams: Sequence[int | None], leaving: int = 0) -> list[Move]:
        """Return which processes to ask now.

        Args:
            now_ns: now.
            streams: of each front-end process, those that can be asked; None for a process that does not listen.
            leaving: of all, those that were asked and are still where they were.
        """
        counts = [each for each in streams if each is not None]
        if len(counts) < len(streams):
            self._due_ns = None
            return []
        if self._due_ns is None:
            self._pause_ns, self._due_ns = FIRST_PAUSE_NS, now_ns + FIRST_PAUSE_NS
        if leaving:
            self._due_ns = max(self._due_ns, now_ns + FIRST_PAUSE_NS)  # until their new process has told of them
        if now_ns < self._due_ns or not is_uneven(counts):
            return []
        if now_ns - self._moved_ns > CALM * self._pause_ns:
            self._pause_ns = FIRST_PAUSE_NS
        self._moved_ns, self._due_ns = now_ns, now_ns + self._pause_ns
        self._pause_ns = min(2 * self._pause_ns, LONGEST_PAUSE_NS)
        even = sum(counts) / len(counts)
        return [Move(front_end, int(count - even)) for front_end, count in enumerate(counts) if count >= even + 1]


def is_uneven(counts: Sequence[int]) -> bool:
    """Whether the busiest process has much more streams than an even share."""
    even = sum(counts) / len(counts)
    deviation = sqrt(even * (1 - 1 / len(counts)))
    return max(counts) >= max(MUCH * even, even + deviation, even + LEAST_MORE)

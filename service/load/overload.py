"""Decides when a server that has too much to do asks streams to go to other servers, and how many. Pure.

Theory of operation
    A server that was over its threshold at every look for `SUSTAINED_NS` asks at most `MOST_SHARE` of its streams, at
    least one, every `ROUND_NS`. It stops at the first look at which it is not over.

    No server knows of the others. It knows whether asking helps: streams that were asked come back as resumed ones, to
    this server because there is no other, or to another, which sends some of its own here if it is over as well. Where
    half as many came resumed since the last few requests as were asked in them, or more, every server is over.

    Then the server only probes: it asks a single stream every `PROBE_NS`. Where none came resumed from one probe to the
    next, the next follows after `ROUND_NS`; where none came after that one either, another server has room, and the
    server asks as in the beginning. It takes two, because chance alone keeps streams away after one probe in four.

    After `FORGET_NS` without overload the server asks as in the beginning.
"""

from collections import deque
from typing import Final, NamedTuple

SUSTAINED_NS: Final = 10_000_000_000
ROUND_NS: Final = 5_000_000_000
MOST_SHARE: Final = 0.05
PROBE_NS: Final = 20_000_000_000
"""A server that was added gets its first stream from each of the others within this time. A server with 50 streams
moves each once in a quarter of an hour by that."""
ENOUGH_STAYS: Final = 2
JUDGED: Final = 4  # requests that are judged together: of single ones, chance alone decides
FORGET_NS: Final = 60_000_000_000
STAY_NS: Final = 60_000_000_000
"""A stream that came resumed cannot be asked before: it moves once a minute at most, among any number of servers."""
SETTLED_NS: Final = 300_000_000_000
"""Nor is it asked because of load before. In simulated fleets with as much load as they can do, or more, heavy streams
wandered with a minute, and made the busiest servers busier than without any moves (`bench.scale_simulation`)."""


class _Request(NamedTuple):
    """Streams that were asked, and those that had come by then.

    Attributes:
        asked: streams.
        came: resumed streams by then.
    """

    asked: int
    came: int


class Overload:
    """See the module's theory of operation. Owner: one thread.

    Attributes:
        is_futile: whether every server is over, as far as this one knows. The stream that it asks then is to be drawn
            by chance: the heaviest would wander from server to server.
    """

    def __init__(self) -> None:
        self.is_futile = False
        self._stays = 0  # probes in a row from which no stream came resumed
        self._over_since_ns: int | None = None
        self._calm_since_ns: int | None = None
        self._due_ns = 0
        self._requests: deque[_Request] = deque(maxlen=JUDGED)  # the oldest first

    def decide(self, now_ns: int, *, is_over: bool, streams: int, came: int) -> int:
        """Return how many streams to ask now.

        Args:
            now_ns: now.
            is_over: whether the server is over its threshold.
            streams: open streams of frames.
            came: streams that have come resumed so far, those that this server had asked for other reasons left out.
        """
        if not is_over:
            self._rest(now_ns)
            return 0
        self._calm_since_ns = None
        self._over_since_ns = now_ns if self._over_since_ns is None else self._over_since_ns
        if now_ns - self._over_since_ns < SUSTAINED_NS or now_ns < self._due_ns:
            return 0
        self._judge(came)
        self._due_ns = now_ns + (PROBE_NS if self.is_futile and not self._stays else ROUND_NS)
        return min(streams, 1 if self.is_futile else max(1, int(streams * MOST_SHARE)))

    def asked(self, count: int, came: int) -> None:
        """Note that so many of the streams that `decide` returned could be asked; `came` is as it was then."""
        if count:
            self._requests.append(_Request(count, came))

    def _rest(self, now_ns: int) -> None:
        self._over_since_ns = None
        self._requests.clear()
        self._calm_since_ns = now_ns if self._calm_since_ns is None else self._calm_since_ns
        if now_ns - self._calm_since_ns >= FORGET_NS:
            self.is_futile, self._stays, self._due_ns = False, 0, now_ns

    def _judge(self, came: int) -> None:
        if not self._requests:
            return
        if self.is_futile:
            self._stays = self._stays + 1 if came <= self._requests[-1].came else 0
            if self._stays >= ENOUGH_STAYS:
                self.is_futile, self._stays = False, 0
                self._requests.clear()
        else:
            self.is_futile = 2 * (came - self._requests[0].came) >= sum(each.asked for each in self._requests)

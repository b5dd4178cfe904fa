"""Decides when a server that has too much to do asks streams to go to other servers, and how many. Pure.

Theory of operation
    A server that was above its threshold for `SUSTAINED_NS`, by the mean of its last looks, asks streams to go until it
    is at `EASED` of the threshold: at most `MOST_SHARE` of them, at least one, every `ROUND_NS`. While it is above that
    it sends streams that come from other servers on (`door`), so that they find a server that has room.

    No server knows of the others. It knows whether asking helps: a stream that found no room anywhere is taken by a
    server that would send it on, its own or another one. Where half as many were taken in this way since the last
    request as were asked in it, or more, the fleet has no room at this threshold. Then the threshold rises by `RISE`,
    and the server asks single streams, every `PROBE_NS`. Where none came, the threshold falls to `FALL` of itself, down
    to `BUSY`; after two requests in a row from which none came, the server asks as in the beginning.

    So where every server has too much to do, the thresholds of all come to be near the load of those that have the
    least: these take streams and the others do not, although all are busy. Sums up and parts down bring thresholds
    together, as they do with the rates of TCP. A server that is content with its threshold asks no stream, and lowers
    it after `PROBE_NS`: then it asks, and so finds a server that was added.

    After `FORGET_NS` without overload it all begins anew.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final, NamedTuple

from forebay_server.service.load.meter import BUSY

SUSTAINED_NS: Final = 10_000_000_000
ROUND_NS: Final = 5_000_000_000
MOST_SHARE: Final = 0.05
PROBE_NS: Final = 10_000_000_000
EASED: Final = 0.94
"""Of the threshold: a server just below the threshold would be above it again with its next stream."""
RISE: Final = 0.05
FALL: Final = 0.93
MOST_ABOVE_LOAD: Final = 1.15
ENOUGH_STAYS: Final = 2
FORGET_NS: Final = 60_000_000_000
LOOKS: Final = 5
"""That are averaged: the load of a second has some 5 % of chance in it."""
STAY_NS: Final = 60_000_000_000
"""A stream that came resumed cannot be asked before: it moves once a minute at most, among any number of servers."""
SETTLED_NS: Final = 300_000_000_000
"""Nor is it asked because of load before. In simulated fleets with as much load as they can do, or more, heavy streams
wandered with a minute, and made the busiest servers busier than without any moves (`bench.scale_simulation`)."""
UNWANTED_NS: Final = 120_000_000_000
"""One that came because no server had room has not wandered. With five minutes for these as well, a server with ten
streams runs out of streams that it may ask, and does not find the server that is added then."""


class _Request(NamedTuple):
    """Streams that were asked, and those that had been taken against the server's wish by then."""

    asked: int
    unwanted: int


@dataclass(frozen=True, slots=True)
class Wish:
    """What a server asks for.

    Attributes:
        count: of streams, at most.
        surplus: utilization that they should have together.
    """

    count: int = 0
    surplus: float = 0.0


NOTHING: Final = Wish()


class Overload:
    """See the module's theory of operation. Owner: one thread.

    Attributes:
        threshold: utilization above which the server asks streams to go.
        has_room: whether streams that come from other servers are welcome.
    """

    def __init__(self) -> None:
        self.threshold = BUSY
        self.has_room = True
        self._looks: deque[float] = deque(maxlen=LOOKS)
        self._over_since_ns: int | None = None
        self._calm_since_ns: int | None = None
        self._is_easing = False
        self._stays = ENOUGH_STAYS  # requests in a row from which no stream came
        self._due_ns = 0
        self._is_content = False  # with its threshold
        self._request: _Request | None = None

    def decide(self, now_ns: int, *, utilization: float, streams: int, unwanted: int) -> Wish:
        """Return the streams to ask now.

        Args:
            now_ns: now; one look a second.
            utilization: of the server since the last look, more than 1 where it is offered more than it can do.
            streams: open streams of frames.
            unwanted: streams that have come resumed so far and were taken while the server had no room.
        """
        self._looks.append(utilization)
        load = sum(self._looks) / len(self._looks)
        self.has_room = max(load, utilization) <= EASED * self.threshold
        if not self._is_over(now_ns, load) or now_ns < self._due_ns:
            return NOTHING
        self._judge(unwanted, load)
        surplus = load - EASED * self.threshold
        if surplus <= 0:
            self._due_ns, self._is_content = now_ns + PROBE_NS, True
            return NOTHING
        is_sure = self._stays >= ENOUGH_STAYS
        self._due_ns = now_ns + (ROUND_NS if is_sure else PROBE_NS)
        count = max(1, int(streams * MOST_SHARE)) if is_sure else 1
        return Wish(min(streams, count), surplus)

    def asked(self, count: int, unwanted: int) -> None:
        """Note that so many of the streams that `decide` returned could be asked; `unwanted` is as it was then."""
        self._request = _Request(count, unwanted) if count else None

    def _is_over(self, now_ns: int, load: float) -> bool:
        """Return whether the server has been above the lowest threshold for long, and is not yet below it again."""
        if load <= (EASED * BUSY if self._is_easing else BUSY):
            self._over_since_ns, self._request, self._is_easing = None, None, False
            self._calm_since_ns = now_ns if self._calm_since_ns is None else self._calm_since_ns
            if now_ns - self._calm_since_ns >= FORGET_NS:
                self.threshold, self._stays, self._due_ns = BUSY, ENOUGH_STAYS, now_ns
            return False
        self._calm_since_ns = None
        self._over_since_ns = now_ns if self._over_since_ns is None else self._over_since_ns
        self._is_easing = now_ns - self._over_since_ns >= SUSTAINED_NS
        return self._is_easing

    def _judge(self, unwanted: int, load: float) -> None:
        request, self._request = self._request, None
        if self._is_content:
            self.threshold, self._is_content = max(BUSY, self.threshold * FALL), False
        if request is None:
            return
        if 2 * (unwanted - request.unwanted) >= request.asked:
            self.threshold = max(BUSY, min(self.threshold + RISE, load * MOST_ABOVE_LOAD))
            self._stays = 0
            return
        self.threshold = max(BUSY, self.threshold * FALL)
        self._stays += 1

"""Decides when a server that has too much to do asks streams to go to other servers, and how many. Pure.

Theory of operation
    A server that was over its threshold at every look for `SUSTAINED_NS` asks at most `MOST_SHARE` of its streams, at
    least one, every `ROUND_NS`. It stops at the first look at which it is not over.

    No server knows of the others. It knows whether asking helps: streams that were asked come back as resumed ones, to
    this server because there is no other, or to another, which sends some of its own here if it is over as well. Have
    half as many come resumed within `ROUND_NS` of a request as were asked, or more, then every server is over. Then one
    stream is asked after a pause, and each pause is twice as long as the one before it, up to `LONGEST_PAUSE_NS`: that
    stream finds out whether another server has room again. If it stays away, the next pause is half as long.

    After `FORGET_NS` without overload the pause is as in the beginning, so that the server never asks less for ever.
"""

from typing import Final, NamedTuple

SUSTAINED_NS: Final = 10_000_000_000
ROUND_NS: Final = 5_000_000_000
MOST_SHARE: Final = 0.05
LONGEST_PAUSE_NS: Final = 120_000_000_000
FORGET_NS: Final = 60_000_000_000
STAY_NS: Final = 60_000_000_000
"""A stream that came resumed is not asked again before: it moves once a minute at most, among any number of servers."""


class _Request(NamedTuple):
    """Streams that were asked, and those that had come by then.

    Attributes:
        at_ns: when.
        asked: streams.
        came: resumed streams by then.
    """

    at_ns: int
    asked: int
    came: int


class Overload:
    """See the module's theory of operation. Owner: one thread."""

    def __init__(self) -> None:
        self._over_since_ns: int | None = None
        self._calm_since_ns: int | None = None
        self._due_ns = 0
        self._pause_ns = ROUND_NS
        self._request: _Request | None = None  # whose effect is not known yet

    @property
    def is_futile(self) -> bool:
        """Whether every server was over, as far as this one knows."""
        return self._pause_ns > ROUND_NS

    def decide(self, now_ns: int, *, is_over: bool, streams: int, came: int) -> int:
        """Return how many streams to ask now.

        Args:
            now_ns: now.
            is_over: whether the server is over its threshold.
            streams: open streams of frames.
            came: streams that have come resumed so far, those that this server had asked for other reasons left out.
        """
        self._judge(now_ns, came)
        if not is_over:
            self._over_since_ns = None
            self._calm_since_ns = now_ns if self._calm_since_ns is None else self._calm_since_ns
            if now_ns - self._calm_since_ns >= FORGET_NS:
                self._pause_ns, self._due_ns = ROUND_NS, now_ns
            return 0
        self._calm_since_ns = None
        self._over_since_ns = now_ns if self._over_since_ns is None else self._over_since_ns
        if now_ns - self._over_since_ns < SUSTAINED_NS or now_ns < self._due_ns or self._request is not None:
            return 0
        count = min(streams, 1 if self.is_futile else max(1, int(streams * MOST_SHARE)))
        if count:
            self._due_ns = now_ns + self._pause_ns
        return count

    def asked(self, now_ns: int, count: int, came: int) -> None:
        """Note that so many of the streams that `decide` returned could be asked."""
        if count:
            self._request = _Request(now_ns, count, came)

    def _judge(self, now_ns: int, came: int) -> None:
        request = self._request
        if request is None or now_ns < request.at_ns + ROUND_NS:
            return
        self._request = None
        if 2 * (came - request.came) >= request.asked:
            self._pause_ns = min(2 * self._pause_ns, LONGEST_PAUSE_NS)
            self._due_ns = request.at_ns + self._pause_ns
        else:
            self._pause_ns = max(self._pause_ns // 2, ROUND_NS)
            self._due_ns = request.at_ns + self._pause_ns

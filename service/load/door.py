"""Sends streams that come from other servers on, while this one has no room for them. Pure.

A balancer that counts streams sends a stream to the server with the fewest, which may be the one with the most to do,
or the one that the stream has just left. A refusal says that another server may well take the call, so that a proxy,
or the client itself, tries there at once. A call says which attempt it is; one that has been sent on `MOST_SENT_ON`
times is taken, and so is one that does not say, because its client may not try again. So no stream is kept out, and
nothing about single streams has to be remembered.

Owner: one thread.
"""

from collections.abc import Iterable
from typing import Final

ATTEMPT_KEYS: Final = ("forebay-attempt", "x-envoy-attempt-count")
"""Metadata of a call, from 1 on: of the client library with several servers, and of Envoy. The larger one counts."""
MOST_SENT_ON: Final = 3
"""As many as `num_retries` of deploy/envoy."""
CLOSED_NS: Final = 5_000_000_000
"""After streams were asked to go: so long the balancer may send them back."""


class Door:
    """See the module.

    Attributes:
        has_room: whether the server has room by its load, as of its latest look.
    """

    def __init__(self) -> None:
        self.has_room = True
        self._closed_until_ns = 0

    def asked(self, now_ns: int) -> None:
        """Note that streams are asked to go elsewhere."""
        self._closed_until_ns = now_ns + CLOSED_NS

    def sends_on(self, attempt: int, now_ns: int) -> bool:
        """Whether a stream that comes resumed is to be sent to another server; `attempt` 0: it does not say."""
        is_closed = not self.has_room or now_ns < self._closed_until_ns
        return is_closed and 0 < attempt <= MOST_SENT_ON


def attempt_of(metadata: Iterable[tuple[str, str | bytes]]) -> int:
    """Return which attempt a call says that it is; 0 if it does not say, or says no number."""
    said = [value for key, value in metadata if key in ATTEMPT_KEYS and isinstance(value, str)]
    return max((int(value) for value in said if value.isdecimal() and value.isascii() and len(value) < 7), default=0)

"""Remembers the streams that were asked to go to other servers, to refuse each once if it comes straight back. Pure.

A balancer that counts streams sends a stream back to the server that it has just left: that server has one less than
the others. The refusal says that another server may well take the call, so that a proxy, or the client itself, tries
there at once. Where there is no other, the stream comes again and is taken. So a request costs one refusal at most.

Owner: one thread.
"""

from typing import Final

BACK_NS: Final = 5_000_000_000
"""A stream that comes later has been elsewhere, or comes for a reason of its own."""


class Leavers:
    """See the module. Holds at most one entry for each stream that was asked in the last `BACK_NS`."""

    def __init__(self) -> None:
        self._until_ns: dict[str, int] = {}  # by the name of the stream, the oldest first

    def asked(self, stream_id: str, now_ns: int) -> None:
        """Note that a stream was asked to go."""
        self._forget(now_ns)
        self._until_ns.pop(stream_id, None)
        self._until_ns[stream_id] = now_ns + BACK_NS

    def comes_back(self, stream_id: str, now_ns: int) -> bool:
        """Whether a stream that comes resumed is to be refused: it was asked just now, and not refused yet."""
        self._forget(now_ns)
        return self._until_ns.pop(stream_id, None) is not None

    def _forget(self, now_ns: int) -> None:
        while self._until_ns:
            first = next(iter(self._until_ns))
            if self._until_ns[first] > now_ns:
                return
            del self._until_ns[first]

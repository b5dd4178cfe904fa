"""What the end of a call means: over, try again, or refused for good. Pure."""

import enum
from dataclasses import dataclass

RETRYABLE = frozenset(
    {
        "OK",  # the server half-closed without having been asked to
        "UNAVAILABLE",
        "CANCELLED",  # not by us: HAProxy's 503 page looks like this
        "INTERNAL",  # RST_STREAM, from nginx for one
        "UNKNOWN",  # a proxy that does not speak gRPC
        "RESOURCE_EXHAUSTED",  # the limit of streams
        "DEADLINE_EXCEEDED",  # a proxy's own limit
        "ABORTED",
    }
)
RESTRICTED = "This protocol is restricted"  # how a server begins that wants a header; Triton's code and words
HINT_KEYS = ("retry-after-ms", "grpc-retry-pushback-ms")
_LONGEST_HINT_MS = 60_000


class Verdict(enum.Enum):
    """What to do after a call."""

    REOPEN = "reopen"  # orderly: no back-off
    RETRY = "retry"  # after a back-off
    REFUSED = "refused"  # never again


@dataclass(frozen=True, slots=True)
class CallEnd:
    """How a call ended.

    Attributes:
        code: name of the gRPC status code.
        details: the server's or the library's words.
        hint_ms: the server's advice when to come back; 0 for none.
        was_asked: the server had sent Reconnect and every frame was answered.
    """

    code: str
    details: str = ""
    hint_ms: int = 0
    was_asked: bool = False

    @property
    def words(self) -> str:
        """For people."""
        return f"{self.code}: {self.details}" if self.details else self.code

    @property
    def verdict(self) -> Verdict:
        """What it means for the stream."""
        if self.was_asked:
            return Verdict.REOPEN
        if self.code == "RESOURCE_EXHAUSTED" and "larger than max" in self.details:
            return Verdict.REFUSED  # gRPC's words for a message that is too large: the next frame would be, too
        if self.code == "UNAVAILABLE" and self.details.startswith(RESTRICTED):
            return Verdict.REFUSED
        return Verdict.RETRY if self.code in RETRYABLE else Verdict.REFUSED


def hint_ms(metadata: list[tuple[str, str]]) -> int:
    """Return the server's advice out of its trailing metadata, limited to a minute; 0 for none."""
    for key, value in metadata:
        if key in HINT_KEYS and value.isdigit():
            return min(int(value), _LONGEST_HINT_MS)
    return 0

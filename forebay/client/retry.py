"""Classifies the end of a call: over, try again, or refused for good. Pure."""

import enum
from dataclasses import dataclass

from forebay.connect_words import connect_words

RETRYABLE = frozenset(
    {
        "OK",  # the server half-closed unasked
        "UNAVAILABLE",
        "CANCELLED",  # not sent by this client: HAProxy's 503 page looks like this
        "INTERNAL",  # RST_STREAM, for example from nginx
        "UNKNOWN",  # a proxy that does not speak gRPC
        "RESOURCE_EXHAUSTED",  # the limit of streams
        "DEADLINE_EXCEEDED",  # a proxy's own limit
        "ABORTED",
    }
)
# start of the message of a server that requires a header; Triton's code and message
RESTRICTED = "This protocol is restricted"
TOO_LARGE = "Send smaller pictures, or JPEG, or raise max_message_bytes of the server"
HINT_KEYS = ("retry-after-ms", "grpc-retry-pushback-ms")
_LONGEST_HINT_MS = 60_000


class NextStep(enum.Enum):
    """The step after a call."""

    REOPEN = "reopen"  # orderly: no back-off
    RETRY = "retry"  # after a back-off
    REFUSED = "refused"  # never again


@dataclass(frozen=True, slots=True)
class CallEnd:
    """How a call ended.

    Attributes:
        code: name of the gRPC status code.
        details: the message of the server or of the library.
        hint_ms: the server's advice when to come back; 0 for none.
        was_asked: the server had sent Reconnect and every frame was answered.
    """

    code: str
    details: str = ""
    hint_ms: int = 0
    was_asked: bool = False

    @property
    def words(self) -> str:
        """A description for messages to people."""
        return f"{self.code}: {self.reason}" if self.reason else self.code

    @property
    def reason(self) -> str:
        """The message, with a remedy where it is gRPC's own and has none."""
        return f"{self.details}. {TOO_LARGE}" if self.is_too_large else connect_words(self.details)

    @property
    def is_too_large(self) -> bool:
        """Whether a message was larger than the server takes."""
        return self.code == "RESOURCE_EXHAUSTED" and "larger than max" in self.details  # gRPC's own message

    @property
    def next_step(self) -> NextStep:
        """The consequence for the stream."""
        if self.was_asked:
            return NextStep.REOPEN
        if self.is_too_large:  # the next frame would be too large as well
            return NextStep.REFUSED
        if self.code == "UNAVAILABLE" and self.details.startswith(RESTRICTED):
            return NextStep.REFUSED
        return NextStep.RETRY if self.code in RETRYABLE else NextStep.REFUSED


def hint_ms(metadata: list[tuple[str, str]]) -> int:
    """Return the server's advice out of its trailing metadata, limited to a minute; 0 for none."""
    for key, value in metadata:
        if key in HINT_KEYS and value.isdigit():
            return min(int(value), _LONGEST_HINT_MS)
    return 0

"""Asks the client for a keyframe while frames are answered NEEDS_KEYFRAME, at most once a second.

Owner: the event loop's thread.
"""

from forebay.wire import frames_pb2 as pb

INTERVAL_NS = 1_000_000_000  # encoders need up to a second for one, and each is ten times as large as other frames


class KeyframeRequests:
    """When the client is asked."""

    __slots__ = ("_asked_ns",)

    def __init__(self) -> None:
        self._asked_ns: int | None = None

    def message(self, seq: int, now_ns: int) -> bytes | None:
        """Return the message to send when frame `seq` is answered NEEDS_KEYFRAME; None if one was sent just now."""
        if self._asked_ns is not None and now_ns - self._asked_ns < INTERVAL_NS:
            return None
        self._asked_ns = now_ns
        return pb.ServerMessage(need_keyframe=pb.NeedKeyframe(since_seq=seq)).SerializeToString()

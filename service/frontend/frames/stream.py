"""One live stream of frames: what is said beside results, how long it may live, and its conversation.

Owner: the event loop's thread.
"""

from collections import deque

from forebay.wire import frames_pb2 as pb
from forebay_server.service.errors import ServiceError, SessionStateError
from forebay_server.service.frontend.frames.codec import parse_client_message
from forebay_server.service.frontend.frames.session import Session
from forebay_server.service.frontend.stream_call import LOOK_INTERVAL_S, StreamCall
from forebay_server.service.pipeline.shares import Share
from forebay_server.service.settings import ServeSettings

OPEN_DEADLINE_S = 20.0  # a call that never says what it wants must not keep its place among the streams


class FrameStream:
    """A stream, from its call's first moment on.

    Args:
        call: carries it.
        session_id: as its client is told.
        lifetime_s: after which it is asked to reconnect; 0 for no limit.
        settings: limits.
        open_deadline_s: for its Open to come.

    Attributes:
        session: set once it was opened.
        names: what it is called in the log.
        leave_by_ns: when the server ends it itself; None until it was asked to leave.
    """

    def __init__(
        self, call: StreamCall, session_id: str, lifetime_s: float, settings: ServeSettings, open_deadline_s: float
    ) -> None:
        self.call = call
        self.session_id = session_id
        self.lifetime_s = lifetime_s
        self.session: Session | None = None
        self.names: dict[str, str | int] = {}
        self.leave_by_ns: int | None = None
        self._control: deque[bytes] = deque()
        self._settings = settings
        self._open_deadline_ns = int(open_deadline_s * 1e9)

    def ask_to_leave(self, reason: "pb.Reconnect.Reason", grace_ms: int, now_ns: int) -> None:
        """Send Reconnect, once."""
        if self.leave_by_ns is None:
            self.leave_by_ns = now_ns + grace_ms * 1_000_000
            self.send_control(pb.ServerMessage(reconnect=pb.Reconnect(reason=reason, grace_ms=grace_ms)))

    def send_control(self, message: pb.ServerMessage) -> None:
        """Queue a message that goes before the next result."""
        self._control.append(message.SerializeToString())
        self.call.output.set()

    def next_control(self) -> bytes | None:
        """Take a message that goes before the next result, or None."""
        return self._control.popleft() if self._control else None

    def look(self, now_ns: int) -> None:
        """See to the Open that has to come, to the lifetime and to heartbeats: for `StreamCall.on_look`."""
        call = self.call
        if self.session is None:
            if now_ns - call.opened_ns > self._open_deadline_ns:
                call.stop_reading()
            return
        if self.leave_by_ns is not None and now_ns >= self.leave_by_ns:
            call.stop_reading()
        elif 0 < self.lifetime_s < (now_ns - call.opened_ns) / 1e9:
            grace_ms = int(self._settings.drain_grace_s * 1000)
            self.ask_to_leave(pb.Reconnect.REASON_REBALANCE, grace_ms, now_ns)
        silence_s = (now_ns - call.outgoing.last_sent_ns) / 1e9
        is_silent = 0 < self._settings.heartbeat_interval_s <= silence_s + LOOK_INTERVAL_S
        if is_silent and not self._control:  # a client for which other messages wait is slow, not forgotten
            heartbeat = pb.Heartbeat(frames_received=self.session.frames_received)
            self.send_control(pb.ServerMessage(heartbeat=heartbeat))


class FrameConversation:
    """A stream that was opened; see `service.frontend.stream_call.Conversation`.

    Args:
        stream: has the messages that are not results.
        session: takes the frames and gives the results.
    """

    __slots__ = ("_session", "_stream", "error", "share")

    def __init__(self, stream: FrameStream, session: Session) -> None:
        self.share: Share = session.share
        self.error: ServiceError | None = None
        self._stream = stream
        self._session = session

    @property
    def has_room(self) -> bool:
        """Whether another frame may be read."""
        return self._session.has_room

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will be read and everything read has been answered."""
        return self._session.is_finished

    def on_message(self, data: bytes, received_ns: int) -> None:
        """Take a frame; anything else ends the stream once all before it was answered."""
        try:
            message = parse_client_message(data)
            if isinstance(message, pb.Open):
                raise SessionStateError("a second open; a stream has exactly one, open another stream instead")
        except ServiceError as error:
            self.error = error.with_traceback(None)  # which would hold this conversation, and the message
            return
        self._session.on_frame(message, received_ns)

    def next_message(self) -> bytes | None:
        """Return the next message that is no result, else the next result, or None."""
        control = self._stream.next_control()
        if control is None:
            return self._session.next_message()
        self._session.is_writer_idle = False
        return control

    def stop_reading(self) -> None:
        """Answer what was read, then finish."""
        self._session.stop_reading()

    def abandon(self) -> None:
        """Cancel what waits, forget what executes."""
        self._session.abandon()

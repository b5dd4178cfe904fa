"""One live stream of frames: how long it may take to open, how long it may live, and its heartbeats.

Owner: the event loop's thread.
"""

import enum
from collections.abc import Callable

from forebay.wire import frames_pb2 as pb
from forebay_server.service.frontend.frames.session import Session
from forebay_server.service.frontend.stream_call import LOOK_INTERVAL_S, StreamCall
from forebay_server.service.settings import ServeSettings

OPEN_DEADLINE_S = 20.0  # a call that never says what it wants must not keep its place among the streams


class Why(enum.Enum):
    """Why a stream is asked to reconnect. The values are labels of a metric."""

    DRAIN = "drain"  # the server ends
    LIFETIME = "lifetime"
    UNLOADED = "unloaded"  # its version is
    UNEVEN = "uneven"  # its front-end process has more streams than the others


class FrameStream:
    """A stream, from its call's first moment on.

    Args:
        call: carries it.
        session_id: the number that its client gets in `Opened`.
        lifetime_s: after which it is asked to reconnect; 0 for no limit.
        settings: limits.
        open_deadline_s: for its Open to come.
        on_asked: called when it is asked to reconnect.

    Attributes:
        session: set once it was opened.
        names: its names in the log.
        leave_by_ns: when the server ends it itself; None until it was asked to leave.
    """

    def __init__(
        self,
        call: StreamCall,
        session_id: str,
        lifetime_s: float,
        settings: ServeSettings,
        open_deadline_s: float,
        on_asked: Callable[[Why], None],
    ) -> None:
        self.call = call
        self.session_id = session_id
        self.lifetime_s = lifetime_s
        self.session: Session | None = None
        self.names: dict[str, str | int] = {}
        self.leave_by_ns: int | None = None
        self._reconnect: pb.ServerMessage | None = None
        self._settings = settings
        self._on_asked = on_asked
        self._open_deadline_ns = int(open_deadline_s * 1e9)

    def ask_to_leave(self, why: Why, grace_ms: int, now_ns: int) -> None:
        """Send Reconnect, once; a stream that is not opened yet sends it before anything else."""
        if self.leave_by_ns is None:
            self._on_asked(why)
            reason = pb.Reconnect.REASON_DRAIN if why is Why.DRAIN else pb.Reconnect.REASON_REBALANCE
            self.leave_by_ns = now_ns + grace_ms * 1_000_000
            self._reconnect = pb.ServerMessage(reconnect=pb.Reconnect(reason=reason, grace_ms=grace_ms))
            self._send_reconnect()

    @property
    def can_move(self) -> bool:
        """Whether it is open, was not asked to leave, and may come to another process: a unix socket is one's own."""
        account = self.call.reading.account
        return self.session is not None and self.leave_by_ns is None and account.address is not None

    def opened(self, session: Session) -> None:
        """The Open has come."""
        self.session = session
        self._send_reconnect()

    def _send_reconnect(self) -> None:
        if self.session is not None and self._reconnect is not None:
            self.session.send_control(self._reconnect.SerializeToString())

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
            self.ask_to_leave(Why.LIFETIME, grace_ms, now_ns)
        silence_s = (now_ns - call.outgoing.last_sent_ns) / 1e9
        is_silent = 0 < self._settings.heartbeat_interval_s <= silence_s + LOOK_INTERVAL_S
        if is_silent and not self.session.has_control:  # a client for which other messages wait is slow, not forgotten
            heartbeat = pb.Heartbeat(frames_received=self.session.frames_received)
            self.session.send_control(pb.ServerMessage(heartbeat=heartbeat).SerializeToString())

"""One live stream of frames: how long it may take to open, how long it may live, and its heartbeats.

Owner: the event loop's thread.
"""

from collections.abc import Callable

from forebay.wire import frames_pb2 as pb
from forebay_server.service.frontend.frames.session import Session
from forebay_server.service.frontend.stream_call import LOOK_INTERVAL_S, StreamCall
from forebay_server.service.journal.streams import NEW, RESUMED, UNWANTED, Why
from forebay_server.service.load.listing import Placement, StreamLine
from forebay_server.service.load.overload import SETTLED_NS, STAY_NS, UNWANTED_NS
from forebay_server.service.settings import ServeSettings

OPEN_DEADLINE_S = 20.0  # a call that never says what it wants must not keep its place among the streams


_REASONS = {
    Why.DRAIN: pb.Reconnect.REASON_DRAIN,
    Why.OVERLOAD: pb.Reconnect.REASON_ELSEWHERE,
    Why.OPERATOR: pb.Reconnect.REASON_ELSEWHERE,
}
"""Reasons as clients get them; REASON_REBALANCE for the rest."""
RESTS_NS = {NEW: 0, RESUMED: SETTLED_NS, UNWANTED: UNWANTED_NS}
"""How long a stream is not asked because of load, by how it was opened."""
LOAD_SHARE = 0.1  # of the latest look in the load of a stream: it forgets half in 3.5 s


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
        leaves_why: why it was asked to leave; None until then.
        load: share of one instance's time that its frames took in the last seconds.
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
        self.leaves_why: Why | None = None
        self.load = 0.0
        self._rest_ns = 0
        self._executed_ns = 0  # at the last look
        self._looked_ns = call.opened_ns
        self._reconnect: pb.ServerMessage | None = None
        self._settings = settings
        self._on_asked = on_asked
        self._open_deadline_ns = int(open_deadline_s * 1e9)

    def ask_to_leave(self, why: Why, grace_ms: int, now_ns: int) -> None:
        """Send Reconnect, once; a stream that is not opened yet sends it before anything else."""
        if self.leave_by_ns is None:
            self._on_asked(why)
            reason = _REASONS.get(why, pb.Reconnect.REASON_REBALANCE)
            self.leaves_why, self.leave_by_ns = why, now_ns + grace_ms * 1_000_000
            self._reconnect = pb.ServerMessage(reconnect=pb.Reconnect(reason=reason, grace_ms=grace_ms))
            self._send_reconnect()

    @property
    def can_move(self) -> bool:
        """Whether it is open, was not asked to leave, and may come to another process: a unix socket is one's own."""
        account = self.call.reading.account
        return self.session is not None and self.leave_by_ns is None and account.address is not None

    def can_go_elsewhere(self, now_ns: int) -> bool:
        """Whether it can be asked to go to another server because of this one's load."""
        if self.session is None or self._placement(self.session, now_ns) is not Placement.MOVABLE:
            return False
        return now_ns - self.call.opened_ns >= self._rest_ns

    def can_be_sent(self, now_ns: int) -> bool:
        """Whether it can be asked to go to another server because an operator wants it."""
        return self.session is not None and self._placement(self.session, now_ns) is Placement.MOVABLE

    def line(self, now_ns: int) -> StreamLine | None:
        """Return its line in the list of open streams; None before it was opened."""
        if self.session is None:
            return None
        config, (has_state, load) = self.session.config, self.weight
        return StreamLine(
            config.stream_id,
            config.version.name,
            config.version.version,
            self._placement(self.session, now_ns),
            load,
            (now_ns - self.call.opened_ns) / 1e9,
            self.session.frames_received,
            has_state,
            config.is_resumed,
        )

    def _placement(self, session: Session, now_ns: int) -> Placement:
        if self.call.reading.account.address is None:
            return Placement.LOCAL
        if self.leave_by_ns is not None:
            return Placement.LEAVING
        is_young = session.config.is_resumed and now_ns - self.call.opened_ns < STAY_NS
        return Placement.STAYS if is_young else Placement.MOVABLE

    @property
    def weight(self) -> tuple[bool, float]:
        """Whether it has state that another server must be given, and its load: those without are asked first."""
        config = None if self.session is None else self.session.config
        return config is not None and (config.tracks is not None or config.video is not None), self.load

    def opened(self, session: Session, how: str) -> None:
        """The Open has come; `how` is of `OPENED_HOW`."""
        self.session = session
        self._rest_ns = RESTS_NS[how]
        self._send_reconnect()

    def _send_reconnect(self) -> None:
        if self.session is not None and self._reconnect is not None:
            self.session.send_control(self._reconnect.SerializeToString())

    def _weigh(self, now_ns: int) -> None:
        if self.session is not None and now_ns > self._looked_ns:
            executed_ns = self.session.executed_ns
            latest = (executed_ns - self._executed_ns) / (now_ns - self._looked_ns)
            self.load += LOAD_SHARE * (latest - self.load)
            self._executed_ns, self._looked_ns = executed_ns, now_ns

    def look(self, now_ns: int) -> None:
        """See to the Open that has to come, to room, the lifetime and heartbeats: for `StreamCall.on_look`."""
        call = self.call
        self._weigh(now_ns)
        if self.session is None:
            if now_ns - call.opened_ns > self._open_deadline_ns:
                call.stop_reading()
            return
        if self.session.has_room:  # a worker may have made it after the last answer was written
            call.room.set()
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

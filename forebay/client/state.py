"""State shared by the user's side and the link's side of one stream: the ledger under one lock, and the wake-ups.

Theory of operation
    The link runs on an event loop; the user may be on the same loop (`forebay.aio`) or on any thread (`forebay`). Both
    use the ledger only here, under `monitor`. Threads wait on `monitor`; coroutines are woken through `on_change`,
    which runs on the loop alone: a change on the user's side gets there with the link's wake-up.

Thread: any, but frames come from one sender at a time (the sync client holds a lock while it encodes, the async one
does not suspend).
"""

from collections.abc import Callable
from dataclasses import replace

from forebay.client.clock import Clock
from forebay.client.encode import FrameData, frame_message, payload_in, payload_of, size_of
from forebay.client.errors import StreamClosedError
from forebay.client.from_wire import result_from_wire
from forebay.client.keyframe import can_begin_at
from forebay.client.ledger import Ledger, Offer
from forebay.client.monitor import Monitor
from forebay.client.options import StreamOptions
from forebay.client.result import Opened, Result
from forebay.client.statistics import Statistics
from forebay.wire import frames_pb2 as wire

# of a stream without a budget, or with one that is shorter than a round trip over a slow network
LEAST_PATIENCE_MS = 200.0


def _nothing() -> None:
    """Do nothing: the default callback."""


class StreamState:
    """See the module's theory of operation.

    Attributes:
        monitor: guards all attributes; notified at every change that a user may wait for.
        options: the caller's options; the first frame fills in width and height if they were not given.
        wake_link: set by the link; thread-safe.
        on_change: set by the async stream; called on the loop only.
        error: the reason for the end of the stream, unless the user ended it.
        is_over: the link has ended: every frame has ended too.
        is_finishing: no more frames.
        track_state: the latest state of the stream's tracks, for the next call; the link's alone.
        needs_keyframe: of video: the server has asked for a keyframe, and no frame was executed since; or the stream
            leaves its server at the next one.
    """

    def __init__(self, options: StreamOptions, clock: Clock, capture_clock_ns: Callable[[], int]) -> None:
        self.monitor = Monitor()
        self.options = options
        self.wake_link: Callable[[], None] = _nothing
        self.on_change: Callable[[], None] = _nothing
        self.error: Exception | None = None
        self.is_over = False
        self.is_finishing = False
        self.track_state = b""
        self.needs_keyframe = False
        self._leaves_at_keyframe = False
        self._ledger = Ledger(
            queue_frames=options.queue_frames, drops_oldest=options.drops_oldest, resends=options.resends
        )
        self._clock = clock
        self._capture_clock_ns = capture_clock_ns
        self._opened: Opened | None = None
        self._patience_ns: int | None = None
        self._server = ""
        self._opened_count = 0

    # --- the user's side

    @property
    def opened(self) -> Opened | None:
        """The grant of the latest call; None before the first."""
        with self.monitor.lock:
            return self._opened

    @property
    def server(self) -> str:
        """The address of the server that opened the latest call; empty before the first."""
        with self.monitor.lock:
            return self._server

    @property
    def is_openable(self) -> bool:
        """Whether the link has all values that Open needs."""
        return not self.options.needs_size

    def can_send(self) -> bool:
        """Whether `try_send` would take a frame (or raise) now. Call with the monitor's lock held."""
        return self._ledger.has_room or self.options.drops_oldest or self.is_over or self.is_finishing

    def try_send(self, frame: FrameData, capture_time_ns: int | None, budget_ms: float | None) -> int | None:
        """Copy and queue a frame; return its seq, or None if there is no room under the policy 'block'.

        Raises:
            StreamClosedError: finished or closed.
            TypeError, ValueError: not a frame of this stream; nothing was queued.
        """
        capture_ns = self._capture_clock_ns() if capture_time_ns is None else capture_time_ns
        with self.monitor.lock:
            self._refuse_if_closed()
            if not self.can_send():
                return None
            seq = self._ledger.next_seq
        options = self._with_size_of(frame)
        payloads = payload_of(options.encoding, options.width, options.height, frame)
        self.options = options  # the size of a frame becomes the stream's only if the frame fits
        message = frame_message(seq, capture_ns // 1000, budget_ms, payloads)
        with self.monitor.lock:
            self._refuse_if_closed()
            if self._ledger.offer(message, capture_ns) is Offer.FULL:
                return None
            self.monitor.notify_all()
        self.wake_link()
        return seq

    def take(self) -> Result | None:
        """Return the next result in order, if it has come.

        Raises:
            the error that ended the stream, once every result is taken.
        """
        with self.monitor.lock:
            result = self._ledger.take()
            if result is None:
                if self.is_over and self.error is not None:
                    raise self.error
                return None
            needs_wake = self._ledger.has_queued or self.is_exhausted
            self.monitor.notify_all()
        if needs_wake:
            self.wake_link()
        return result

    def can_take(self) -> bool:
        """Whether `take` would return a result or raise, or no result will come. Call with the monitor's lock held."""
        return self._ledger.has_ready or self.is_over or self.is_exhausted

    @property
    def is_exhausted(self) -> bool:
        """Whether no result will come any more. Call with the monitor's lock held."""
        return (self.is_finishing or self.is_over) and self._ledger.is_empty

    @property
    def has_ended(self) -> bool:
        """Whether `take` will never again return a result."""
        with self.monitor.lock:
            return self.is_exhausted

    def finish(self) -> None:
        """Accept no more frames; queued frames are still sent and answered. Idempotent."""
        with self.monitor.lock:
            self.is_finishing = True
            self.monitor.notify_all()
        self.wake_link()

    def statistics(self) -> Statistics:
        """Return a snapshot."""
        with self.monitor.lock:
            return self._ledger.statistics(self._opened_count)

    def _refuse_if_closed(self) -> None:
        if self.error is not None:
            raise self.error
        if self.is_finishing or self.is_over:
            raise StreamClosedError("the stream takes no more frames: it was finished or closed")

    def _with_size_of(self, frame: FrameData) -> StreamOptions:
        if not self.options.needs_size:
            return self.options
        width, height = size_of(self.options.encoding, frame)
        return replace(self.options, width=width, height=height)

    # --- the link's side

    def next_to_send(self) -> bytes | None:
        """Return the next message to write, if the window of the current call has room."""
        with self.monitor.lock:
            if self._opened is None or not self._ledger.has_queued:
                return None
            message = self._ledger.next_to_send(
                max(1, self._opened.window),
                self._clock.now_ns(),
                is_finishing=self.is_finishing,
                patience_ns=self._patience_ns,
            )
            if message is not None:
                self._notify()  # the queue has room
            return message

    def answered(self, message: wire.Result) -> None:
        """Record an answer and its age."""
        now_ns, capture_now_ns = self._clock.now_ns(), self._capture_clock_ns()
        with self.monitor.lock:
            entry = self._ledger.find(message.seq)
            capture_ns = entry.capture_ns if entry else capture_now_ns
            sent_ns = entry.sent_ns if entry else now_ns
            age_ms, round_trip_ms = (capture_now_ns - capture_ns) / 1e6, (now_ns - sent_ns) / 1e6
            self._ledger.answered(result_from_wire(message, capture_ns, age_ms, round_trip_ms))
            self.track_state = message.track_state or self.track_state
            is_served = message.status.code == wire.STATUS_OK and not self._leaves_at_keyframe
            self.needs_keyframe = self.needs_keyframe and not is_served
            self._notify()

    def keyframe_asked_for(self) -> None:
        """Record that the server needs a keyframe."""
        with self.monitor.lock:
            self.needs_keyframe = True
            self._notify()

    def leaves_at_keyframe(self) -> None:
        """Record that the stream leaves its server at the next keyframe: an encoder that can be asked makes one now."""
        with self.monitor.lock:
            self._leaves_at_keyframe = self.needs_keyframe = True
            self._notify()

    def is_at_keyframe(self) -> bool:
        """Whether the next frame to be sent can be the first one of another call; if so, have it wait for that call."""
        options = self.options
        with self.monitor.lock:
            message = self._ledger.first_queued
            if message is None:
                return False
            if not can_begin_at(payload_in(message), options.encoding, has_sets=bool(options.parameter_sets)):
                return False
            self._leaves_at_keyframe = self.needs_keyframe = False
            self._ledger.spare()
            return True

    def granted(self, opened: Opened, server: str) -> Opened | None:
        """Record the grant of a call and the server's address; return the previous call's grant."""
        with self.monitor.lock:
            before, self._opened = self._opened, opened
            self._patience_ns = self._patience_with(opened)
            self._server = server
            self._leaves_at_keyframe = False
            self._opened_count += 1
            self._notify()
            return before

    def lost(self, reason: str) -> None:
        """Account for frames in flight at the end of a call."""
        with self.monitor.lock:
            self._ledger.lose(reason)
            self._notify()

    def over(self, reason: str, error: Exception | None) -> None:
        """End the stream: every frame that has not ended ends now."""
        with self.monitor.lock:
            self._ledger.give_up(reason)
            self.error = self.error or error
            self.is_over = True
            self._notify()

    @property
    def resume_from(self) -> int | None:
        """The field of Open: None at the first call."""
        with self.monitor.lock:
            return self._ledger.resume_from if self._opened_count else None

    @property
    def has_nothing_to_send(self) -> bool:
        """Whether the last frame was written: half-close now."""
        with self.monitor.lock:
            return self.is_finishing and not self._ledger.has_queued

    @property
    def has_queued(self) -> bool:
        """Whether a frame waits to be sent."""
        with self.monitor.lock:
            return self._ledger.has_queued

    @property
    def has_in_flight(self) -> bool:
        """Whether a frame waits for its answer."""
        with self.monitor.lock:
            return self._ledger.has_in_flight

    @property
    def is_done(self) -> bool:
        """Whether every frame has ended and no more will come."""
        with self.monitor.lock:
            return self.is_finishing and self._ledger.is_settled

    def _patience_with(self, opened: Opened) -> int | None:
        """Return when an unanswered frame says that the network is congested; None: never."""
        if self.options.is_video and opened.reorder_frames != 0:
            return None  # a picture that is held back until later frames have come would stop these frames
        return round(max(opened.latency_budget_ms, LEAST_PATIENCE_MS) * 1e6)

    def _notify(self) -> None:
        self.monitor.notify_all()
        self.on_change()

"""A session: the server's side of one stream of frames, without any I/O.

Theory of operation
    Every frame gets a `Place` in the outbox, in arrival order, at the moment it is read. A place is answered by a
    completion (from a refusal here, the former, a worker or delivery) in any order; the writer takes answered places
    from the head only. So results follow the order of arrival even if later frames end first, and a frame that is
    refused takes its place like any other.

    The reader may go on while the outbox has room: `window` places for EVERY, so that HTTP/2 pushes back on a client
    that sends too fast; twice the window for LATEST, whose older frames make way. A frame leaves the outbox when its
    result is handed to the transport, one at a time, so that memory per stream is bounded by the window.

    A session ends when the client has half-closed (or the server has stopped reading) and the outbox is empty.
    `abandon` ends it at once: waiting frames are cancelled, executing ones are dropped when they come back.

Owner: the event loop's thread. The workers' part is `service.frontend.frames.decoder`.
"""

from collections import Counter, deque
from collections.abc import Callable
from functools import partial

from forebay.wire import frames_pb2 as pb
from forebay_server.service.clock import Clock
from forebay_server.service.errors import (
    DeadlineExpiredError,
    InvalidRequestError,
    InvalidSessionError,
    Outcome,
    RequestCancelledError,
    ServiceError,
    SessionStateError,
    SupersededError,
)
from forebay_server.service.frontend.admission import Admission, Arrival, cancel
from forebay_server.service.frontend.frames.codec import (
    FrameMessage,
    encode_refusal,
    encode_result,
    parse_client_message,
)
from forebay_server.service.frontend.frames.decoder import FrameDecoder, known_error
from forebay_server.service.frontend.frames.opening import StreamConfig, budget_ms_to_ns
from forebay_server.service.frontend.frames.outbox import Answer, Outbox, Place
from forebay_server.service.frontend.frames.recorder import StreamRecorder
from forebay_server.service.frontend.frames.tracks import StreamTracks
from forebay_server.service.frontend.frames.video.decoder import VideoDecoder
from forebay_server.service.frontend.frames.video.keyframe_requests import KeyframeRequests
from forebay_server.service.frontend.frames.video.limits import VideoPlace
from forebay_server.service.pictures.preview import Preview
from forebay_server.service.pipeline.arena import BorrowedFrame
from forebay_server.service.pipeline.shares import Share
from forebay_server.service.request import Completion, CompletionSink, Delivery, FrameBuffer, Request, StreamKey
from forebay_server.service.worker_pool import WorkerPool

TOO_LATE = "the latency budget is shorter than the least that one frame takes"


class Session:
    """See the module's theory of operation.

    Args:
        config: the stream's constant facts.
        pool: decodes frames that are not plain copies.
        sink: where a worker posts a frame that it refuses.
        clock: source of monotonic nanoseconds.
        admission: the way in.
        max_image_pixels: larger pictures are refused.
        on_output: called when the head of the outbox became answered, or the session finished.
        on_room: called when the reader may go on.
        recorder: receives what becomes of frames; None disables observation.
        tracks: gives ids to the detections of results, in the order of the stream; None if they are not tracked.
        video: the right to a decoder of video; None for a stream of pictures or tensors.

    Attributes:
        is_writer_idle: whether the next result is written as soon as the event loop gets to it, because the client has
            taken everything before it.
        share: its share of the permits.
        error: ends the stream, see `service.frontend.stream_call.Conversation`.
        late_count: frames that were executed and missed their deadline.
        executed_ns: the part of its frames in the executions of their batches.
    """

    def __init__(
        self,
        config: StreamConfig,
        pool: WorkerPool,
        sink: CompletionSink,
        clock: Clock,
        admission: Admission,
        *,
        max_image_pixels: int,
        on_output: Callable[[], None],
        on_room: Callable[[], None],
        recorder: StreamRecorder | None = None,
        tracks: StreamTracks | None = None,
        video: VideoPlace | None = None,
    ) -> None:
        self.config = config
        self.frames_received = 0
        self.outcomes: Counter[Outcome] = Counter()
        self.late_count = 0
        self.executed_ns = 0
        self.share = Share()
        self.share.follows = config.delivery is Delivery.LATEST
        self.error: ServiceError | None = None
        self._key = StreamKey(config.stream_id, config.delivery)
        self._clock = clock
        self._on_output = on_output
        self._on_room = on_room
        self._admission = admission
        self._recorder = recorder
        self._tracks = tracks
        if tracks is not None:
            tracks.on_tracked = self._answer
        self._control: deque[bytes] = deque()
        self._outbox = Outbox(config.window if config.delivery is Delivery.EVERY else 2 * config.window)
        self._next_seq = config.first_seq
        self._is_reading = True
        self.is_writer_idle = True
        self._keyframe_requests = KeyframeRequests()
        self._decoder: FrameDecoder | VideoDecoder
        if video is None:
            self._decoder = FrameDecoder(config, pool, sink, clock, admission, max_image_pixels)
        else:
            self._decoder = VideoDecoder(config, pool, sink, clock, admission, max_image_pixels, video)

    @property
    def has_room(self) -> bool:
        """Whether another frame may be read."""
        return self._outbox.has_room and self._decoder.has_room

    @property
    def in_flight(self) -> int:
        """Frames read and not yet handed to the transport."""
        return len(self._outbox)

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will be read and everything read has been answered."""
        return self._outbox.first is None and not self._is_reading and not self._control

    def send_control(self, message: bytes) -> None:
        """Have a message that is no result written before the next result."""
        self._control.append(message)
        self._on_output()

    @property
    def has_control(self) -> bool:
        """Whether a message that is no result has not been written yet."""
        return bool(self._control)

    def on_message(self, data: bytes, received_ns: int) -> None:
        """Take a frame; anything else ends the stream once all before it was answered."""
        try:
            message = parse_client_message(data)
        except ServiceError as error:
            self.error = error.with_traceback(None)  # which would hold this session, and the message
            return
        if isinstance(message, pb.Open):
            self.error = SessionStateError("a second open; a stream has exactly one, open another stream instead")
            return
        self.on_frame(message, received_ns)

    def on_frame(self, frame: FrameMessage, received_ns: int) -> None:
        """Take in a frame that was read at `received_ns`. Never raises for a client's mistake."""
        place = Place(frame.seq, frame.capture_time_us, received_ns)
        self._outbox.add(place)
        if self._tracks is not None:
            self._tracks.add(place)
        self.frames_received += 1
        preview = None if self._recorder is None else self._recorder.came(place, frame.payload)
        try:
            self._admit(place, frame, preview)
        except Exception as error:
            if isinstance(error, ServiceError) and error.scope == "session":
                raise  # our bug: the stream ends, and its handler logs why
            known = known_error(error)
            self._admission.refuse(self.config.version, known.outcome, received_ns)
            self._answer(place, known)

    def stop_reading(self) -> None:
        """The client half-closed, or the server stops listening: answer what was read, then finish."""
        self._is_reading = False
        self._decoder.end()
        if self._tracks is not None:
            self._tracks.end_soon()
        self._on_output()

    def abandon(self) -> None:
        """The client is gone: cancel what waits, forget what executes."""
        self._admission.settle()
        self._is_reading = False
        self._control.clear()
        if self._tracks is not None:
            self._tracks.clear()
        if self._recorder is not None:
            self._recorder.forget()
        unanswered, requests = self._outbox.clear()
        if unanswered:
            self.outcomes[RequestCancelledError.outcome] += unanswered
        for request in self._decoder.take_waiting():
            self._admission.give_up(self.config.version, request, Outcome.CANCELLED)
        cancel(self.config.version, requests)

    def call_at_rest(self, do: Callable[[], None]) -> None:
        """Call `do` once no worker writes to a frame buffer of this session, which has ended: now, or on the worker."""
        self._decoder.call_at_rest(do)

    def next_message(self) -> bytes | None:
        """Return the bytes of the next message to write: the head of the outbox if it is answered; else None."""
        if self._control:
            self.is_writer_idle = False
            return self._control.popleft()
        outbox = self._outbox
        had_room = outbox.has_room
        place = outbox.take()
        if place is None:
            self.is_writer_idle = True
            return None
        answer, times = place.answer, place.timeline
        assert answer is not None  # noqa: S101 - for mypy: only answered places are taken
        times.built_ns = built_ns = self._clock.now_ns()
        if isinstance(answer, Completion) and answer.outputs is not None:
            deadline_ns = answer.request.deadline_ns
            self.late_count += deadline_ns is not None and built_ns > deadline_ns
            self.executed_ns += times.execute_ns // (answer.batch_size or 1)
        if self.is_writer_idle and isinstance(answer, Completion) and answer.outputs is not None:
            self.config.version.egress_time.observe(times.readable_ns, times.built_ns)
        self.is_writer_idle = False
        if self._recorder is not None:
            self._recorder.ended(place, answer)
        if isinstance(answer, ServiceError):
            message = encode_refusal(place.seq, place.capture_time_us, answer, times)
        else:
            message = encode_result(
                place.seq,
                place.capture_time_us,
                answer,
                self.config.version.specs,
                self.config.wants.tensor_indices,
            )
        if outbox.has_room and not (had_room and self._decoder.is_quick):  # a worker may have made the room
            self._on_room()
        return message

    def _admit(self, place: Place, frame: FrameMessage, preview: Preview | None) -> None:
        config, decoder, received_ns = self.config, self._decoder, place.timeline.received_ns
        if frame.seq < self._next_seq:
            raise InvalidRequestError(f"frame.seq is {frame.seq}; it must rise, at least {self._next_seq} here")
        is_next = frame.seq == self._next_seq
        self._next_seq = frame.seq + 1
        try:
            request = self._taken(place, frame)
        except ServiceError:
            decoder.pass_by(frame.payload, received_ns, is_next=is_next)
            raise
        if decoder.is_quick or isinstance(request.frame, BorrowedFrame):
            self._admission.enter(config.version, request)
        else:
            request.preview = preview
            decoder.push(request, frame.payload, received_ns, is_next=is_next)
        self._outbox.enter(place, request)  # it ends on this thread, so not before the event loop's next iteration

    def _taken(self, place: Place, frame: FrameMessage) -> Request:
        """Return the request of a frame, with a permit and a buffer. Raises ServiceError."""
        config, decoder = self.config, self._decoder
        if config.payload_bytes is not None and len(frame.payload) != config.payload_bytes:
            raise InvalidRequestError(
                f"frame {frame.seq} has {len(frame.payload)} payload bytes; this stream takes {config.payload_bytes}"
            )
        deadline_ns = None if config.budget_ns is None else place.timeline.received_ns + config.budget_ns
        if frame.latency_budget_ms is not None:
            deadline_ns = place.timeline.received_ns + _own_budget_ns(frame.latency_budget_ms)
        supersedes = config.delivery is Delivery.LATEST and not decoder.is_quick
        arrival = Arrival(
            config.version,
            self._key,
            1,
            None,
            deadline_ns,
            config.priority,
            partial(self._superseding if supersedes else decoder.buffer_of, frame.payload, self.share),
            self._complete,
            place.timeline,
            config.wants,
            config.size,
            decode_ns=decoder.time.mean_ns,
        )
        try:
            return self._admission.take(arrival, TOO_LATE)
        except DeadlineExpiredError:
            decoder.time.doubt(self._clock.now_ns())
            raise

    def _superseding(self, payload: memoryview, share: Share) -> FrameBuffer:
        """Give up the frames that wait for a decoder, then take a buffer: theirs may be the one that it gets."""
        for request in self._decoder.supersede():
            error = SupersededError("a newer frame of this stream arrived before this one was decoded")
            self._admission.give_up(self.config.version, request, error.outcome)
            self._complete(Completion(request, error=error))
        return self._decoder.buffer_of(payload, share)

    def _complete(self, completion: Completion) -> None:
        place = self._outbox.ended(completion.request.id)
        is_next = place is not None and place is self._outbox.first
        if completion.outputs is not None and not (self.is_writer_idle and is_next):
            # From here on it waits for its client, or for the frame before it: for nothing that others wait for.
            readable_ns = completion.request.timeline.readable_ns
            self.config.version.egress_time.observe(readable_ns, self._clock.now_ns(), is_typical=False)
        if place is None:  # the client has gone
            return
        if self._tracks is None:
            self._answer(place, completion)
        else:
            self._tracks.came(place, completion)

    def _answer(self, place: Place, answer: Answer) -> None:
        place.answer = answer
        error = answer if isinstance(answer, ServiceError) else answer.error
        if error is not None:
            place.timeline.readable_ns = place.timeline.readable_ns or self._clock.now_ns()
            # The frames of a traceback hold the payload, which would stay until the answer's turn comes.
            error.__traceback__ = error.__context__ = error.__cause__ = None
            if error.outcome is Outcome.NEEDS_KEYFRAME:
                self._ask_for_keyframe(place.seq)
        self.outcomes[Outcome.OK if error is None else error.outcome] += 1
        if place is self._outbox.first:
            self._on_output()
        if self._tracks is not None:
            self._tracks.go_on()  # a refused frame may have been the one that the next result waited for

    def _ask_for_keyframe(self, seq: int) -> None:
        message = self._keyframe_requests.message(seq, self._clock.now_ns())
        if message is not None:
            self.send_control(message)


def _own_budget_ns(budget_ms: float) -> int:
    """Return the latency budget that a frame brings. Raises InvalidRequestError if it is none."""
    try:
        return budget_ms_to_ns(budget_ms, "frame.latency_budget_ms")
    except InvalidSessionError as error:
        raise InvalidRequestError(error.message) from None

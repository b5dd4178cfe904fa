"""A session: the server's side of one stream of frames, without any I/O.

Theory of operation
    Every frame gets an `Entry` in the outbox, in arrival order, at the moment it is read. An entry is answered by a
    completion (from a refusal here, the former, a worker or delivery) in any order; the writer takes answered entries
    from the head only. So results follow arrival order whatever happens in between, and a frame that is refused takes
    its place like any other.

    The reader may go on while the outbox has room: `window` entries for EVERY, so that HTTP/2 pushes back on a client
    that sends too fast; twice the window for LATEST, whose older frames make way. An entry leaves the outbox when its
    result is handed to the transport, one at a time, so that memory per stream is bounded by the window.

    A session ends when the client has half-closed (or the server has stopped reading) and the outbox is empty.
    `abandon` ends it at once: what waits is cancelled, what executes is dropped when it comes back.

Owner: the event loop's thread. Only `decode` and what it calls run elsewhere, on a worker.
"""

import itertools
from collections import Counter, deque
from collections.abc import Callable
from functools import partial

import structlog

from forebay.wire import frames_pb2 as pb
from forebay_server.service.clock import Clock
from forebay_server.service.errors import (
    DeadlineExpiredError,
    InvalidRequestError,
    InvalidSessionError,
    Outcome,
    RequestCancelledError,
    ServiceError,
    SupersededError,
    internal,
)
from forebay_server.service.frontend.admission import Admission, Arrival, cancel
from forebay_server.service.frontend.frames.codec import FrameMessage, encode_refusal, encode_result
from forebay_server.service.frontend.frames.decode.pictures import decode_into
from forebay_server.service.frontend.frames.decode_time import DecodeTime
from forebay_server.service.frontend.frames.opening import StreamConfig, budget_ms_to_ns
from forebay_server.service.frontend.plain_copy import copy_into
from forebay_server.service.journal.events import FrameEvent, StreamRecord
from forebay_server.service.journal.pictures import Snapshot
from forebay_server.service.pipeline.arena import BorrowedFrame
from forebay_server.service.pipeline.shares import Share
from forebay_server.service.request import (
    Completion,
    CompletionSink,
    Delivery,
    FrameBuffer,
    Request,
    StreamKey,
    Timeline,
)
from forebay_server.service.worker_pool import Line, WorkerPool

log = structlog.get_logger(__name__)

TOO_LATE = "the latency budget is shorter than the least that one frame takes"
INLINE_COPY_BYTES = 1 << 20  # a plain copy up to this is cheaper than a hand-over to a worker (30 µs)


class Entry:
    """One frame's place in the outbox. Attributes as in Frame and Completion; `answer` is None until it has one."""

    __slots__ = ("answer", "capture_time_us", "request", "seq", "timeline")

    def __init__(self, seq: int, capture_time_us: int, received_ns: int) -> None:
        self.seq = seq
        self.capture_time_us = capture_time_us
        self.timeline = Timeline(received_ns=received_ns)
        self.request: Request | None = None
        self.answer: Completion | ServiceError | None = None


class Session:
    """See the module's theory of operation.

    Args:
        config: the stream's constant facts.
        pool: decodes frames that are not plain copies.
        sink: where a worker posts a frame that it refuses.
        clock: time.
        admission: the way in.
        max_image_pixels: larger pictures are refused.
        on_output: called when the head of the outbox became answered, or the session finished.
        on_room: called when the reader may go on.
        record: this stream in the journal.
        tell: appends to the journal how a frame ended; None if nobody observes.

    Attributes:
        is_writer_idle: whether the next result is written as soon as the event loop gets to it, because the client has
            taken everything before it. Whoever writes another message clears it.
        share: its share of the permits.
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
        record: StreamRecord | None = None,
        tell: Callable[[FrameEvent], None] | None = None,
    ) -> None:
        self.config = config
        self.frames_received = 0
        self.outcomes: Counter[Outcome] = Counter()
        self.share = Share()
        self._key = StreamKey(config.stream_id, config.delivery)
        self._sink = sink
        self._clock = clock
        self._max_image_pixels = max_image_pixels
        self._on_output = on_output
        self._on_room = on_room
        self._admission = admission
        self._record = record
        self._tell = tell if record is not None else None
        self._picture = record.picture if record is not None else None
        self._kept: tuple[Entry, memoryview] | None = None  # a frame that somebody wants to look at
        self._outbox: deque[Entry] = deque()
        self._capacity = config.window if config.delivery is Delivery.EVERY else 2 * config.window
        self._next_seq = config.first_seq
        self._is_reading = True
        self._is_abandoned = False
        self.is_writer_idle = True
        is_copy = config.image is None or (
            config.encoding == (pb.ENCODING_RGB8 if config.image.color_order == "RGB" else pb.ENCODING_BGR8)
            and config.size == (config.image.width, config.image.height)
        )
        self._copies = is_copy
        self._input_ends = tuple(itertools.accumulate(config.version.arena.row_bytes, initial=0))
        self._copies_inline = is_copy and (config.payload_bytes or 0) <= INLINE_COPY_BYTES
        self._decode_time = DecodeTime()
        # Not a method of this session: it and its line would hold each other.
        self._line: Line[tuple[Session, Request, memoryview]] = Line(pool, _decode)

    @property
    def has_room(self) -> bool:
        """Whether another frame may be read."""
        return len(self._outbox) < self._capacity

    @property
    def in_flight(self) -> int:
        """Frames read and not yet handed to the transport."""
        return len(self._outbox)

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will be read and everything read has been answered."""
        return not self._is_reading and not self._outbox

    def on_frame(self, frame: FrameMessage, received_ns: int) -> None:
        """Take in a frame that was read at `received_ns`. Never raises for what a client did."""
        entry = Entry(frame.seq, frame.capture_time_us, received_ns)
        self._outbox.append(entry)
        self.frames_received += 1
        if self._picture is not None and self._picture.is_wanted:
            self._picture.is_wanted = False
            self._kept = (entry, frame.payload)
        try:
            self._admit(entry, frame)
        except ServiceError as error:
            if error.scope == "session":  # our bug: the stream ends, and its handler logs why
                raise
            self._refuse(entry, error)
        except Exception as error:  # noqa: BLE001 - whatever it is ends this frame, not the stream
            self._refuse(entry, _unforeseen(error))

    def stop_reading(self) -> None:
        """The client half-closed, or the server stops listening: answer what was read, then finish."""
        self._is_reading = False
        self._on_output()

    def abandon(self) -> None:
        """The client is gone: cancel what waits, forget what executes."""
        self._is_reading = False
        self._is_abandoned = True
        unanswered = [entry for entry in self._outbox if entry.answer is None]
        requests = [entry.request for entry in unanswered if entry.request is not None]
        for entry in self._outbox:
            entry.answer = entry.request = None  # an entry and its request hold each other
        self._outbox.clear()
        self._kept = None
        self.outcomes[RequestCancelledError.outcome] += len(unanswered)
        for _, request, _ in self._line.take_waiting():
            self._admission.give_up(self.config.version, request, Outcome.CANCELLED)
        cancel(self.config.version, requests)

    def next_message(self) -> bytes | None:
        """Take the head of the outbox if it is answered and return its bytes, else None."""
        if not self._outbox or self._outbox[0].answer is None:
            self.is_writer_idle = True
            return None
        had_room = self.has_room
        entry = self._outbox.popleft()
        answer = entry.answer
        assert answer is not None  # noqa: S101 - for mypy: checked above
        entry.timeline.built_ns = self._clock.now_ns()
        if self.is_writer_idle and isinstance(answer, Completion) and answer.outputs is not None:
            times = entry.timeline
            self.config.version.delivery_time.observe(times.readable_ns, times.built_ns)
        self.is_writer_idle = False
        if self._tell is not None:
            self._tell_end(entry, answer)
        if self._kept is not None and self._kept[0] is entry:
            self._show(entry, answer, self._kept[1])
        entry.answer = entry.request = None  # an entry and its request hold each other: free the outputs now
        if isinstance(answer, ServiceError):
            message = encode_refusal(entry.seq, entry.capture_time_us, answer, entry.timeline)
        else:
            message = encode_result(
                entry.seq,
                entry.capture_time_us,
                answer,
                self.config.version.specs,
                self.config.wants.tensor_indices,
            )
        if not had_room and self.has_room:
            self._on_room()
        return message

    def _tell_end(self, entry: Entry, answer: Completion | ServiceError) -> None:
        assert self._tell is not None and self._record is not None  # noqa: S101, PT018 - for mypy: the caller looked
        if isinstance(answer, ServiceError):
            outcome: Outcome | None = answer.outcome
            deadline_ns = None
        else:
            outcome = None if answer.error is None else answer.error.outcome
            deadline_ns = answer.request.deadline_ns
        self._tell((self._record, entry.timeline, outcome, deadline_ns, entry.capture_time_us, None))

    def _show(self, entry: Entry, answer: Completion | ServiceError, payload: memoryview) -> None:
        """Leave a frame with its result where the operator's page finds it; one that did not end well gives way."""
        assert self._picture is not None  # noqa: S101 - for mypy: the frame was kept because of it
        self._kept = None
        if isinstance(answer, ServiceError) or answer.error is not None:
            self._picture.is_wanted = self._picture.is_looked_at
            return
        snapshot = Snapshot(
            payload,
            self.config.encoding,
            answer.request.frame_size,
            answer.result or (),
            entry.seq,
            entry.timeline.built_ns,
        )
        self._picture.put(snapshot)

    def _admit(self, entry: Entry, frame: FrameMessage) -> None:
        config = self.config
        if frame.seq < self._next_seq:
            raise InvalidRequestError(f"frame.seq is {frame.seq}; it must rise, at least {self._next_seq} here")
        self._next_seq = frame.seq + 1
        if config.payload_bytes is not None and len(frame.payload) != config.payload_bytes:
            raise InvalidRequestError(
                f"frame {frame.seq} has {len(frame.payload)} payload bytes; this stream takes {config.payload_bytes}"
            )
        arrival = Arrival(
            config.version,
            self._key,
            1,
            None,
            self._deadline_ns(frame, entry.timeline.received_ns),
            config.priority,
            partial(self._buffer_of, frame.payload),
            partial(self._complete, entry),
            entry.timeline,
            config.wants,
            config.size,
            decode_ns=self._decode_time.mean_ns,
        )
        try:
            request = entry.request = self._admission.take(arrival, TOO_LATE)
        except DeadlineExpiredError:
            self._decode_time.doubt(self._clock.now_ns())
            raise
        if self._copies_inline or isinstance(request.frame, BorrowedFrame):
            self._admission.enter(config.version, request)
        else:
            self._line.push((self, request, frame.payload))

    def _buffer_of(self, payload: memoryview) -> FrameBuffer:
        """Take a permit and a buffer; put a small plain copy into it, all else is a worker's. Raises ServiceError."""
        config = self.config
        if not self._copies_inline and config.delivery is Delivery.LATEST:
            self._supersede_encoded()
        arena = config.version.arena
        if self._copies and (borrowed := arena.borrow(payload, self.share)) is not None:
            return borrowed
        frame = arena.lease(self.share)
        if self._copies_inline:
            try:
                copy_into(frame, self._inputs_of(payload))
            except BaseException:
                frame.release()
                raise
        return frame

    def _deadline_ns(self, frame: FrameMessage, received_ns: int) -> int | None:
        budget_ns = self.config.budget_ns
        if frame.latency_budget_ms is not None:
            try:
                budget_ns = budget_ms_to_ns(frame.latency_budget_ms, "frame.latency_budget_ms")
            except InvalidSessionError as error:
                raise InvalidRequestError(error.message) from None
        return None if budget_ns is None else received_ns + budget_ns

    def _supersede_encoded(self) -> None:
        error = SupersededError("a newer frame of this stream arrived before this one was decoded")
        for _, request, _ in self._line.take_waiting():
            self._admission.give_up(self.config.version, request, error.outcome)
            request.on_completion(Completion(request, error=error))

    def decode(self, request: Request, payload: memoryview) -> None:
        """Decode one frame into its buffer and hand it to the former. Thread: worker, from the session's own line."""
        started_ns = self._clock.now_ns()
        try:
            self._fill(request, payload, started_ns)
        except Exception as error:  # noqa: BLE001 - whatever it is ends this frame, not the worker
            known = error if isinstance(error, ServiceError) else _unforeseen(error)
            self._admission.give_up(self.config.version, request, known.outcome)
            self._sink.post([Completion(request, error=known)])
            return
        now_ns = self._clock.now_ns()
        self._decode_time.observe(started_ns, now_ns)
        self._admission.enter_decoded(self.config.version, request, now_ns)

    def _fill(self, request: Request, payload: memoryview, now_ns: int) -> None:
        """Put a picture, or a large plain copy, into its frame buffer. Raises ServiceError. Thread: worker."""
        config = self.config
        if request.is_cancelled:
            raise RequestCancelledError("the client left")
        if config.version.feasibility.is_hopeless(now_ns, request.deadline_ns, self._decode_time.mean_ns):
            self._decode_time.doubt(now_ns)
            raise DeadlineExpiredError("the latency budget ran out while the frame waited for a decoder")
        if self._copies:
            copy_into(request.frame, self._inputs_of(payload))
            return
        assert config.image is not None  # noqa: S101 - for mypy: `_copies` is False only for pictures
        shape = (config.image.height, config.image.width, 3)
        target = request.frame.host.write_view()[: config.image.nbytes].reshape(shape)
        request.frame_size = decode_into(
            target, payload, config.encoding, config.size, config.image, self._max_image_pixels
        )

    def _inputs_of(self, payload: memoryview) -> list[memoryview]:
        ends = self._input_ends
        return [payload[start:end] for start, end in itertools.pairwise(ends)]

    def _complete(self, entry: Entry, completion: Completion) -> None:
        if completion.outputs is not None and not (self.is_writer_idle and self._is_head(entry)):
            # From here on it waits for its client, or for the frame before it: for nothing that others wait for.
            self.config.version.delivery_time.observe(
                entry.timeline.readable_ns, self._clock.now_ns(), is_typical=False
            )
        if not self._is_abandoned:
            self._answer(entry, completion)

    def _refuse(self, entry: Entry, error: ServiceError) -> None:
        """End a frame before it comes to the former, which counts what does."""
        self._admission.refuse(self.config.version, error.outcome, entry.timeline.received_ns)
        self._answer(entry, error)

    def _answer(self, entry: Entry, answer: Completion | ServiceError) -> None:
        entry.answer = answer
        error = answer if isinstance(answer, ServiceError) else answer.error
        if error is not None:
            entry.timeline.readable_ns = entry.timeline.readable_ns or self._clock.now_ns()
            # They hold the payload while the entry waits for its turn.
            error.__traceback__ = error.__context__ = error.__cause__ = None
        self.outcomes[Outcome.OK if error is None else error.outcome] += 1
        if self._is_head(entry):
            self._on_output()

    def _is_head(self, entry: Entry) -> bool:
        return bool(self._outbox) and self._outbox[0] is entry


def _decode(item: tuple[Session, Request, memoryview]) -> None:
    session, request, payload = item
    session.decode(request, payload)


def _unforeseen(error: Exception) -> ServiceError:
    """Return how a frame ends that met a bug of ours, or no memory: it alone, and not its stream."""
    log.error("frame failed", exc_info=error)
    return internal(error)

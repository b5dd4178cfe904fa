"""Access units of one stream to buffers that hold the model's inputs: the counterpart of `frames.decoder` for video.

Theory of operation
    A unit is decoded although its own result is not wanted any more, because later pictures need it. So a unit and its
    request part: the request may end early (superseded, expired, no permit), and the unit stays in the stream's work
    queue without it. A worker takes the units in order, one at a time; it has the decoder while it does.

    With B-frames a picture comes out after later units were decoded. Its request waits in `_held` by the number of its
    unit. Results still leave in the order of arrival, which the session keeps.

    A LATEST stream whose units wait for a decoder for too long decodes less (`lag`): first it leaves out units that no
    other needs, then the rest of its group of pictures. Then cores decode only frames that can be in time.

Thread: the event loop's, except `run` and its callees, which are a worker's.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from forebay_server.service.clock import Clock
from forebay_server.service.errors import (
    DeadlineExpiredError,
    InvalidRequestError,
    NeedsKeyframeError,
    Outcome,
    RequestCancelledError,
    ServiceError,
    SupersededError,
)
from forebay_server.service.frontend.admission import Admission
from forebay_server.service.frontend.frames.decode.image_size import check_size
from forebay_server.service.frontend.frames.decode_time import DecodeTime
from forebay_server.service.frontend.frames.decoder import known_error
from forebay_server.service.frontend.frames.opening import StreamConfig
from forebay_server.service.frontend.frames.video.access_unit import AccessUnit, UnitReader
from forebay_server.service.frontend.frames.video.codec import DamagedUnitError, DecodedPicture, VideoCodec
from forebay_server.service.frontend.frames.video.codecs import VideoStream
from forebay_server.service.frontend.frames.video.fields import Part
from forebay_server.service.frontend.frames.video.limits import VideoPlace
from forebay_server.service.frontend.frames.video.order import DecodingOrder, Step
from forebay_server.service.frontend.frames.video.parameter_sets import Sequence
from forebay_server.service.frontend.frames.video.preview import fill_preview
from forebay_server.service.frontend.frames.video.treatment import Treatment
from forebay_server.service.pipeline.shares import Share
from forebay_server.service.request import Completion, CompletionSink, Delivery, FrameBuffer, Request
from forebay_server.service.worker_pool import WorkerPool, WorkQueue

MOST_WAITING_BYTES = 32 << 20  # of a stream's units that wait to be decoded, as for pictures
MOST_WAITING_UNITS = 1024  # each takes memory beside its bytes, and many are answered already: they were refused

_LEFT_OUT = "decoding fell behind, and no other frame needs this one: newer ones are decoded instead"
_FIELD = "one field of a picture: the frame with its other field, which comes next, has the result"
_DAMAGED = "the frame's picture is damaged: a part of it is missing or changed"
_NO_PICTURE = "the decoder made no picture of the frame"


@dataclass(slots=True, eq=False)
class _Unit:
    """A frame in the queue. It names its decoder: a queue with a method of it would hold it for ever.

    Attributes:
        request: waits for the picture; None once nothing does.
        payload: the access unit; None at the end of the stream.
        is_next: whether the client left out none before it.
        received_ns: when it was read.
    """

    decoder: "VideoDecoder"
    request: Request | None
    payload: memoryview | None
    is_next: bool
    received_ns: int


class VideoDecoder:
    """See the module.

    Args:
        config: the stream's constant facts; `config.video` is not None.
        pool: its workers decode.
        sink: where a worker posts a frame that it refuses.
        clock: source of monotonic nanoseconds.
        admission: the way in.
        max_image_pixels: larger pictures are refused.
        place: the stream's right to a decoder; given back at rest.

    Attributes:
        is_quick: False: a worker decodes every frame.
        time: expected duration of decoding.
    """

    is_quick = False

    def __init__(
        self,
        config: StreamConfig,
        pool: WorkerPool,
        sink: CompletionSink,
        clock: Clock,
        admission: Admission,
        max_image_pixels: int,
        place: VideoPlace,
    ) -> None:
        assert config.video is not None  # noqa: S101 - for mypy
        self.time = DecodeTime()
        self._config = config
        self._sink = sink
        self._clock = clock
        self._admission = admission
        self._max_image_pixels = max_image_pixels
        self._place = place
        self._is_latest = config.delivery is Delivery.LATEST
        self._most_following = max(1, config.window - 1)
        self._pool = pool
        self._queue: WorkQueue[_Unit] = WorkQueue(pool, _run)
        self._is_ending = False
        self._pushed_bytes = self._decoded_bytes = 0  # one writer each: the event loop, and the worker
        self._pushed_units = 0
        self._requested: list[int] = []  # numbers of a LATEST stream's units that may wait with a request, oldest first
        # The worker's:
        self._reader = UnitReader(config.video.codec)
        if config.video.sets:
            self._reader.read_sets(config.video.sets)
        reader = self._reader
        self._stream = VideoStream(reader.codec, lambda: reader.sets, config.version.description)
        self._order = DecodingOrder()
        self._treatment = Treatment(self._order, (config.budget_ns or 0) if self._is_latest else None)
        self._codec: VideoCodec | None = None
        self._sequence: Sequence | None = None  # for which memory is reserved
        self._number = 0  # of the latest picture that was decoded, wholly or its first field
        self._held: dict[int, Request] = {}

    @property
    def has_room(self) -> bool:
        """Whether another frame may be read: a frame that waits to be decoded keeps its message. Thread: any.

        A worker makes room without telling; `FrameStream.look` wakes a reader for which nothing else happens.
        """
        waiting_bytes = self._pushed_bytes - self._decoded_bytes
        return waiting_bytes <= MOST_WAITING_BYTES and self._queue.waiting_count < MOST_WAITING_UNITS

    def buffer_of(self, payload: memoryview, share: Share) -> FrameBuffer:  # noqa: ARG002 - as for pictures
        """Take a permit of `share` and a buffer. Raises OverloadedError: there is no permit."""
        return self._config.version.arena.lease(share)

    def push(self, request: Request, payload: memoryview, received_ns: int, *, is_next: bool) -> None:
        """Have a worker decode a frame and hand its picture to the former, after those before it."""
        if self._is_latest:
            self._requested.append(self._pushed_units)
        self._push(_Unit(self, request, payload, is_next, received_ns))

    def pass_by(self, payload: memoryview, received_ns: int, *, is_next: bool) -> None:
        """Have a worker decode a frame that was refused: later ones need its picture."""
        self._push(_Unit(self, None, payload, is_next, received_ns))

    def supersede(self) -> list[Request]:
        """Take back the requests of frames that no worker has begun; the frames are decoded nevertheless.

        The oldest keeps its request: while decoding lags, every frame has a newer one behind it before it is decoded,
        and no picture would ever be executed.
        """
        kept: list[int] = []
        requests: list[Request] = []

        def take(number: int, unit: _Unit) -> None:
            if not kept:
                kept.append(number)
            elif unit.request is not None:
                requests.append(unit.request)
                unit.request = None

        self._queue.visit_waiting(self._requested, take)
        self._requested = kept
        return requests

    def end(self) -> None:
        """No more frames come: have the pictures that are held back shown. Idempotent."""
        if not self._is_ending:
            self._is_ending = True
            self._queue.push(_Unit(self, None, None, is_next=True, received_ns=0))

    def take_waiting(self) -> list[Request]:
        """Drop the frames that no worker has begun, and return their requests."""
        taken = self._queue.take_waiting()
        self._pushed_bytes -= sum(len(unit.payload) for unit in taken if unit.payload is not None)
        return [unit.request for unit in taken if unit.request is not None]

    def call_at_rest(self, do: Callable[[], None]) -> None:
        """Have a worker free the decoder, then call `do`, once none is at a frame of this stream, which has ended."""

        def rest() -> None:
            self._close()
            do()

        # A worker's: to free a device's memory takes milliseconds, and the queue may be at rest on the event loop.
        self._queue.call_at_rest(lambda: self._pool.submit_result(rest))

    def _push(self, unit: _Unit) -> None:
        self._pushed_bytes += len(unit.payload or b"")
        self._pushed_units += 1
        self._queue.push(unit)

    # --- a worker's ---------------------------------------------------------------------------------------------------

    def run(self, unit: _Unit) -> None:
        """Decode one unit, and hand over the pictures that come of it."""
        if unit.payload is None:
            self._drain()
            return
        started_ns = self._clock.now_ns()
        try:
            try:
                data = bytes(unit.payload)
            finally:
                self._decoded_bytes += len(unit.payload)
            self._end_early(unit, started_ns)
            self._take(unit, data, started_ns)
        except Exception as error:  # noqa: BLE001 - any error ends this frame, not the worker
            if not isinstance(error, NeedsKeyframeError):
                self._lose()
            self._refuse(unit.request, known_error(error))

    def _end_early(self, unit: _Unit, now_ns: int) -> None:
        """End the request of a unit if its result is not wanted or cannot be in time."""
        request = unit.request
        if request is None:
            return
        error: ServiceError | None = None
        if request.is_cancelled:
            error = RequestCancelledError("the client left")
        elif self._config.version.feasibility.is_hopeless(now_ns, request.deadline_ns, self.time.mean_ns):
            self.time.doubt(now_ns)
            error = DeadlineExpiredError("the latency budget ran out while the frame waited for a decoder")
        if error is not None:
            unit.request = None
            self._refuse(request, error)

    def _take(self, unit: _Unit, data: bytes, started_ns: int) -> None:
        """Decode a unit or pass it by. Raises ServiceError if its request ends by it."""
        found = self._reader.read(data)
        step, part = self._treated(unit, found, started_ns)
        if found.sequence is None:
            self._lose()
            raise NeedsKeyframeError("the frame names parameter sets that did not come; send a keyframe with them")
        if step is Step.REFUSE:
            raise self._needs_keyframe()
        if step is Step.PASS_BY:
            self._refuse(unit.request, SupersededError(_LEFT_OUT))
            return
        if step is Step.DECODE_AND_REFUSE:
            self._refuse(unit.request, self._needs_keyframe())
            unit.request = None
        elif part is Part.FIRST_FIELD:
            self._refuse(unit.request, SupersededError(_FIELD))
            unit.request = None
        self._prepare(found)
        if part is not Part.SECOND_FIELD:
            self._number += 1
        self._decode(unit, found, data)
        self.time.observe(started_ns, self._clock.now_ns())

    def _treated(self, unit: _Unit, found: AccessUnit, now_ns: int) -> tuple[Step, Part]:
        """Return the treatment of a unit and its part of a picture, after pictures that precede a gap are shown."""
        was_whole = not self._order.needs_keyframe
        treated = self._treatment.judge(
            found,
            is_next=unit.is_next,
            is_wanted=unit.request is not None,
            is_new=found.sequence != self._sequence,
            waited_ns=now_ns - unit.received_ns,
            now_ns=now_ns,
        )
        if was_whole and self._order.needs_keyframe:
            self._drain()
        return treated

    def _prepare(self, found: AccessUnit) -> None:
        """Have a decoder with the memory for a unit. Raises InvalidRequestError and OverloadedError."""
        sequence = found.sequence
        if sequence is None:
            return
        if sequence != self._sequence:
            check_size(self._reader.word, (sequence.width, sequence.height), self._max_image_pixels)
            self._place.reserve(sequence)
            self._sequence = sequence
        if self._codec is None or (found.is_keyframe and not self._codec.takes(sequence)):
            if self._codec is not None:
                self._drain()
                self._close_codec()
                self._order.changes_decoder(found)
            self._codec = self._place.codecs.open(self._stream, sequence)

    def _decode(self, unit: _Unit, found: AccessUnit, data: bytes) -> None:
        codec = self._codec
        assert codec is not None  # noqa: S101 - for mypy: a decoder was prepared for the first keyframe
        if unit.request is not None:
            self._held[self._number] = unit.request
        try:
            pictures = codec.decode(data, self._number)
        except DamagedUnitError:
            self._held.pop(self._number, None)
            if found.is_reference:
                self._lose("a frame was damaged")
            self._refuse(unit.request, InvalidRequestError(_DAMAGED))
            return
        except BaseException:  # `run` refuses the request, once
            self._held.pop(self._number, None)
            raise
        if self._show(pictures):
            self._lose("a frame was damaged")
        following = self._most_following if codec.reorder_frames else 0
        overdue = {number: self._held[number] for number in self._held if self._number - number >= following}
        self._refuse_held(overdue, InvalidRequestError(_NO_PICTURE))

    def _show(self, pictures: Iterable[DecodedPicture]) -> bool:
        """Hand the pictures that are wanted to the former; return whether one is damaged."""
        is_damaged = False
        for picture in pictures:
            request = self._held.pop(picture.number, None)
            if picture.is_damaged:
                is_damaged = True
                self._refuse(request, InvalidRequestError(_DAMAGED))
            elif request is not None:
                try:
                    self._fill(request, picture)
                except Exception as error:  # noqa: BLE001 - any error ends this frame, not the worker
                    self._refuse(request, known_error(error))
        return is_damaged

    def _fill(self, request: Request, picture: DecodedPicture) -> None:
        """Write a picture into its buffer, and hand it to the former. Raises ServiceError."""
        config = self._config
        if request.is_cancelled:
            raise RequestCancelledError("the client left")
        assert config.image is not None  # noqa: S101 - for mypy: models without a picture take no video
        model, offsets = config.image, request.frame.offsets
        row = request.frame.host.write_view()
        start = offsets[model.input_index]
        target = row[start : start + model.nbytes].view(model.dtype).reshape(model.shape)
        request.frame_size = picture.place(target, model, self._max_image_pixels)
        for index, constant in model.constant_inputs:
            row[offsets[index] : offsets[index] + len(constant)] = np.frombuffer(constant, np.uint8)
        if request.preview is not None:
            fill_preview(request.preview, picture)
        self._admission.enter_decoded(config.version, request, self._clock.now_ns())

    def _lose(self, why: str = "") -> None:
        """Note that a picture is missing, and show those that came before it."""
        if not self._order.needs_keyframe:
            self._order.lose(why)
            self._drain()

    def _drain(self) -> None:
        """Show the pictures that are held back. Frames without a picture then will have none: nothing may wait."""
        if self._codec is not None:
            self._show(self._codec.drain())
        self._refuse_held(self._held, InvalidRequestError(_NO_PICTURE))

    def _needs_keyframe(self) -> NeedsKeyframeError:
        return NeedsKeyframeError(f"{self._order.why}: the frame needs pictures that the server lacks; send a keyframe")

    def _refuse_held(self, requests: dict[int, Request], error: ServiceError) -> None:
        for number, request in list(requests.items()):
            self._held.pop(number, None)
            self._refuse(request, error)

    def _refuse(self, request: Request | None, error: ServiceError) -> None:
        if request is not None:
            self._admission.give_up(self._config.version, request, error.outcome)
            self._sink.post([Completion(request, error=error)])

    def _close(self) -> None:
        """Free everything. The client has gone, or every frame was answered."""
        for request in self._held.values():
            self._admission.give_up(self._config.version, request, Outcome.CANCELLED)
        self._held.clear()
        self._close_codec()
        self._place.give_back()

    def _close_codec(self) -> None:
        if self._codec is not None:
            self._codec.close()
            self._codec = None


def _run(unit: _Unit) -> None:
    unit.decoder.run(unit)

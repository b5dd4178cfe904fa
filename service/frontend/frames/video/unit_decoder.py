"""Decodes the access units of one stream, and hands their pictures to the former: the worker's half of a decoder.

Theory of operation
    A unit is decoded although its own result is not wanted any more, because later pictures need it. Where a GPU
    decodes, the worker hands a unit in, looks at its picture and hands it over in steps, between which it sees to other
    streams.

    With B-frames a picture comes out after later units were decoded. Its request waits in `_held` by the number of its
    unit. Results still leave in the order of arrival, which the session keeps.

    A LATEST stream whose units wait for a decoder for too long decodes less (`lag`): first it leaves out units that no
    other needs, then the rest of its group of pictures. Then cores decode only frames that can be in time.

Owner: the worker that has the stream's turn.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

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
from forebay_server.service.frontend.frames.video.codec import (
    DamagedUnitError,
    DecodedPicture,
    Pictures,
    VideoCodec,
)
from forebay_server.service.frontend.frames.video.codecs import VideoStream
from forebay_server.service.frontend.frames.video.fields import Part
from forebay_server.service.frontend.frames.video.limits import VideoPlace
from forebay_server.service.frontend.frames.video.order import DecodingOrder, Step
from forebay_server.service.frontend.frames.video.parameter_sets import Sequence
from forebay_server.service.frontend.frames.video.preview import fill_preview
from forebay_server.service.frontend.frames.video.treatment import Treatment
from forebay_server.service.request import Completion, CompletionSink, Delivery, Request
from forebay_server.service.worker_pool import WorkStep

_LEFT_OUT = "decoding fell behind, and no other frame needs this one: newer ones are decoded instead"
_FIELD = "one field of a picture: the frame with its other field, which comes next, has the result"
_DAMAGED = "the frame's picture is damaged: a part of it is missing or changed"
_NO_PICTURE = "the decoder made no picture of the frame"


@dataclass(slots=True, eq=False)
class Unit:
    """A frame in the queue. It names its decoder: a queue with a method of it would hold it for ever.

    Attributes:
        request: waits for the picture; None once nothing does.
        payload: the access unit; None at the end of the stream.
        is_next: whether the client left out none before it.
        received_ns: when it was read.
    """

    decoder: "UnitDecoder"
    request: Request | None
    payload: memoryview | None
    is_next: bool
    received_ns: int


class UnitDecoder:
    """See the module.

    Args:
        config: the stream's constant facts; `config.video` is not None.
        sink: takes frames that are refused.
        clock: source of monotonic nanoseconds.
        admission: the way in.
        max_image_pixels: larger pictures are refused.
        place: the stream's right to a decoder; given back by `close`.

    Attributes:
        time: expected duration of decoding.
        decoded_bytes: of the units that were begun. Thread: read by any.
    """

    def __init__(
        self,
        config: StreamConfig,
        sink: CompletionSink,
        clock: Clock,
        admission: Admission,
        max_image_pixels: int,
        place: VideoPlace,
    ) -> None:
        assert config.video is not None  # noqa: S101 - for mypy
        self.time = DecodeTime()
        self.decoded_bytes = 0
        self._config = config
        self._sink = sink
        self._clock = clock
        self._admission = admission
        self._max_image_pixels = max_image_pixels
        self._place = place
        self._most_following = max(1, config.window - 1)
        self._reader = reader = UnitReader(config.video.codec)
        if config.video.sets:
            reader.read_sets(config.video.sets)
        self._stream = VideoStream(reader.codec, lambda: reader.sets, config.version.description)
        self._order = DecodingOrder()
        is_latest = config.delivery is Delivery.LATEST
        self._treatment = Treatment(self._order, (config.budget_ns or 0) if is_latest else None)
        self._codec: VideoCodec | None = None
        self._sequence: Sequence | None = None  # for which memory is reserved
        self._number = 0  # of the latest picture that was decoded, wholly or its first field
        self._held: dict[int, Request] = {}
        self._placed: list[Request] = []  # whose pictures are being written

    def run(self, unit: Unit) -> WorkStep | None:
        """Decode one unit, and hand over the pictures that come of it; or begin to, and return the next step."""
        if unit.payload is None:
            self._drain()
            return None
        started_ns = self._clock.now_ns()
        try:
            try:
                data = bytes(unit.payload)
            finally:
                self.decoded_bytes += len(unit.payload)
            self._end_early(unit, started_ns)
            show = self._take(unit, data, started_ns)
        except Exception as error:  # noqa: BLE001 - any error ends this frame, not the worker
            if not isinstance(error, NeedsKeyframeError):
                self._lose()
            self._refuse(unit.request, known_error(error))
            return None
        if show is None or (self._codec is not None and self._codec.is_elsewhere):
            return show
        hand_over = show()
        if hand_over is not None:
            hand_over()
        return None

    def _end_early(self, unit: Unit, now_ns: int) -> None:
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

    def _take(self, unit: Unit, data: bytes, started_ns: int) -> WorkStep | None:
        """Begin to decode a unit, and return what shows its pictures; None: it is passed by, or refused.

        Raises:
            ServiceError: its request ends by it.
        """
        found = self._reader.read(data)
        step, part = self._treated(unit, found, started_ns)
        if found.sequence is None:
            self._lose()
            raise NeedsKeyframeError("the frame names parameter sets that did not come; send a keyframe with them")
        if step is Step.REFUSE:
            raise self._needs_keyframe()
        if step is Step.PASS_BY:
            self._refuse(unit.request, SupersededError(_LEFT_OUT))
            return None
        if step is Step.DECODE_AND_REFUSE:
            self._refuse(unit.request, self._needs_keyframe())
            unit.request = None
        elif part is Part.FIRST_FIELD:
            self._refuse(unit.request, SupersededError(_FIELD))
            unit.request = None
        self._prepare(found)
        if part is not Part.SECOND_FIELD:
            self._number += 1
        pictures = self._begun(unit, found, data)
        return None if pictures is None else partial(self._show_all, pictures, started_ns)

    def _treated(self, unit: Unit, found: AccessUnit, now_ns: int) -> tuple[Step, Part]:
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

    def _begun(self, unit: Unit, found: AccessUnit, data: bytes) -> Pictures | None:
        """Give a unit to the decoder, and return the pictures that come of it; None: it is damaged."""
        codec = self._codec
        assert codec is not None  # noqa: S101 - for mypy: a decoder was prepared for the first keyframe
        if unit.request is not None:
            self._held[self._number] = unit.request
        try:
            return codec.decode(data, self._number)
        except DamagedUnitError:
            self._held.pop(self._number, None)
            if found.is_reference:
                self._lose("a frame was damaged")
            self._refuse(unit.request, InvalidRequestError(_DAMAGED))
            return None
        except BaseException:  # `run` refuses the request, once
            self._held.pop(self._number, None)
            raise

    def _show_all(self, pictures: Pictures, started_ns: int) -> WorkStep:
        """Place the pictures of a unit, and refuse requests for which none comes any more."""
        try:
            if self._show(pictures):
                self._lose("a frame was damaged")
            following = self._most_following if self._codec is not None and self._codec.reorder_frames else 0
            overdue = {number: self._held[number] for number in self._held if self._number - number >= following}
            self._refuse_held(overdue, InvalidRequestError(_NO_PICTURE))
        except Exception as error:  # noqa: BLE001 - any error ends frames without a picture, not the worker
            self._refuse_held(self._held, known_error(error))
            self._lose()
        return partial(self._hand_over, started_ns)

    def _show(self, pictures: Iterable[DecodedPicture]) -> bool:
        """Place the pictures that are wanted; return whether one is damaged."""
        has_damage = False
        for picture in pictures:
            is_damaged = picture.is_damaged  # where this raises, the request is still held, and `_show_all` refuses it
            request = self._held.pop(picture.number, None)
            if is_damaged:
                has_damage = True
                self._refuse(request, InvalidRequestError(_DAMAGED))
            elif request is not None:
                try:
                    self._fill(request, picture)
                except Exception as error:  # noqa: BLE001 - any error ends this frame, not the worker
                    self._refuse(request, known_error(error))
                else:
                    self._placed.append(request)
        return has_damage

    def _hand_over(self, started_ns: int | None = None) -> None:
        """Hand the pictures that were placed to the former. `started_ns`: when decoding began, to learn from."""
        requests, self._placed = self._placed, []
        refusal: ServiceError | None = None
        try:
            if self._codec is not None:
                self._codec.settle()
        except Exception as error:  # noqa: BLE001 - any error ends these frames, not the worker
            refusal = known_error(error)
        for request in requests:
            if refusal is None:
                self._admission.enter_decoded(self._config.version, request, self._clock.now_ns())
            else:
                self._refuse(request, refusal)
        if started_ns is not None:
            self.time.observe(started_ns, self._clock.now_ns())

    def _fill(self, request: Request, picture: DecodedPicture) -> None:
        """Write a picture into its buffer, until the decoder settles. Raises ServiceError.

        The model's row comes last: once it is on its way, nothing may raise, which would give the buffer to another.
        """
        config = self._config
        if request.is_cancelled:
            raise RequestCancelledError("the client left")
        assert config.image is not None  # noqa: S101 - for mypy: models without a picture take no video
        if request.preview is not None and self._codec is not None:
            fill_preview(request.preview, picture, self._codec.settle)
        model, offsets = config.image, request.frame.offsets
        row = request.frame.host.write_view()
        for index, constant in model.constant_inputs:
            row[offsets[index] : offsets[index] + len(constant)] = np.frombuffer(constant, np.uint8)
        start = offsets[model.input_index]
        target = row[start : start + model.nbytes].view(model.dtype).reshape(model.shape)
        request.frame_size = picture.place(target, model, self._max_image_pixels)

    def _lose(self, why: str = "") -> None:
        """Note that a picture is missing, and show those that came before it."""
        if not self._order.needs_keyframe:
            self._order.lose(why)
            self._drain()

    def _drain(self) -> None:
        """Show the pictures that are held back. Frames without a picture then will have none: nothing may wait."""
        if self._codec is not None:
            self._show(self._codec.drain())
            self._hand_over()
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

    def close(self) -> None:
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

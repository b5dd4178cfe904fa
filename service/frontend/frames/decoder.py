"""From a frame's payload to a buffer that holds the model's inputs: at once where that is quick, else by a worker.

A plain copy is a payload that already has the model's layout: a tensor, or pixels of its size and order. It stays
where it was received if the device can read it there, and is copied on the event loop if it is small. Everything else
waits in the stream's work queue until a worker decodes it; the frames of a stream are decoded in order.

Thread: the event loop's, except `_decode` and its callees, which are a worker's.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import structlog
from numpy.typing import NDArray

from forebay.wire import frames_pb2 as pb
from forebay_server.service.clock import Clock
from forebay_server.service.errors import DeadlineExpiredError, RequestCancelledError, ServiceError, internal
from forebay_server.service.frontend.admission import Admission
from forebay_server.service.frontend.frames.decode.for_device import file_for_device
from forebay_server.service.frontend.frames.decode.pictures import decode_into
from forebay_server.service.frontend.frames.decode_time import DecodeTime
from forebay_server.service.frontend.frames.opening import StreamConfig
from forebay_server.service.frontend.plain_copy import copy_into
from forebay_server.service.pictures.device_picture import DecodedBy, FilePicture, FilePlace
from forebay_server.service.pictures.geometry import placement_of
from forebay_server.service.pictures.picture_input import PictureInput
from forebay_server.service.pipeline.shares import Share
from forebay_server.service.request import Completion, CompletionSink, FrameBuffer, Request
from forebay_server.service.worker_pool import WorkerPool, WorkQueue

log = structlog.get_logger(__name__)

INLINE_COPY_BYTES = 1 << 20  # a plain copy up to this is cheaper than a hand-over to a worker (30 µs)
_PLAIN: dict[int, str] = {pb.ENCODING_RGB8: "RGB", pb.ENCODING_BGR8: "BGR", pb.ENCODING_MONO8: "GRAY"}
"""Encoding of uncompressed pixels -> their channels."""
MOST_WAITING_BYTES = 32 << 20  # of a stream's frames that wait to be decoded: two of the largest by default


@dataclass(slots=True, eq=False)
class _Encoded:
    """A frame in the queue. It names its decoder: a queue with a method of it would hold it for ever."""

    decoder: "FrameDecoder"
    request: Request
    payload: memoryview


class FrameDecoder:
    """See the module.

    Args:
        config: the stream's constant facts.
        pool: its workers decode.
        sink: where a worker posts a frame that it refuses.
        clock: source of monotonic nanoseconds.
        admission: the way in.
        max_image_pixels: larger pictures are refused.

    Attributes:
        is_quick: whether every frame is a plain copy made on the event loop.
        time: expected duration of decoding.
    """

    def __init__(
        self,
        config: StreamConfig,
        pool: WorkerPool,
        sink: CompletionSink,
        clock: Clock,
        admission: Admission,
        max_image_pixels: int,
    ) -> None:
        self.time = DecodeTime()
        self._config = config
        self._sink = sink
        self._clock = clock
        self._admission = admission
        self._max_image_pixels = max_image_pixels
        self._is_jpeg = config.encoding == pb.ENCODING_JPEG
        self._copies = config.image is None or _has_the_layout(config.encoding, config.size, config.image)
        self.is_quick = self._copies and (config.payload_bytes or 0) <= INLINE_COPY_BYTES
        self._input_ends = tuple(itertools.accumulate(config.version.arena.row_bytes, initial=0))
        self._queue: WorkQueue[_Encoded] = WorkQueue(pool, _decode)
        # Each has one writer, so that none needs a lock: the event loop, and the worker that has the stream's turn.
        self._pushed_bytes = self._decoded_bytes = 0

    @property
    def has_room(self) -> bool:
        """Whether another frame may be read: a frame that waits to be decoded keeps its message. Thread: any."""
        return self._pushed_bytes - self._decoded_bytes <= MOST_WAITING_BYTES

    def buffer_of(self, payload: memoryview, share: Share) -> FrameBuffer:
        """Take a permit of `share` and a buffer, and put a small plain copy into it.

        Raises:
            OverloadedError: there is no permit.
        """
        arena = self._config.version.arena
        if self._copies and (borrowed := arena.borrow(payload, share)) is not None:
            return borrowed
        frame = arena.lease(share)
        if self.is_quick:
            try:
                copy_into(frame, self._inputs_of(payload))
            except BaseException:
                frame.release()
                raise
        return frame

    def push(self, request: Request, payload: memoryview, received_ns: int, *, is_next: bool) -> None:  # noqa: ARG002
        """Have a worker decode a frame and hand it to the former, after those before it.

        Args:
            request: of the frame.
            payload: of the frame.
            received_ns: not used; decoders of video need it.
            is_next: not used, as `received_ns`.
        """
        if not self._enter_file(request, payload):
            self._pushed_bytes += len(payload)
            self._queue.push(_Encoded(self, request, payload))

    def _enter_file(self, request: Request, payload: memoryview) -> bool:
        """Enter a frame at once whose file the device decodes, if no earlier frame of the stream is with a worker.

        Checking and copying 100 KB take about 90 us, as much as a hand-over to a worker and back.
        """
        place = self._files_of(request)
        if place is None or len(payload) > INLINE_COPY_BYTES or not self._queue.is_at_rest:
            return False
        found = file_for_device(payload, place, self._max_image_pixels)
        if isinstance(found, DecodedBy):
            return False
        try:
            self._put_file(request, payload, found)
        except BaseException:
            request.frame.release()
            raise
        self._admission.enter(self._config.version, request)
        return True

    def pass_by(self, payload: memoryview, received_ns: int, *, is_next: bool) -> None:
        """A frame was refused: nothing to do, since no other picture needs it."""

    def supersede(self) -> list[Request]:
        """Take back the frames that no worker has begun, because a newer one has come."""
        return self.take_waiting()

    def end(self) -> None:
        """No more frames come: nothing to do."""

    def take_waiting(self) -> list[Request]:
        """Take back the frames that no worker has begun."""
        taken = self._queue.take_waiting()
        self._pushed_bytes -= sum(len(item.payload) for item in taken)
        return [item.request for item in taken]

    def call_at_rest(self, do: Callable[[], None]) -> None:
        """Call `do` once no worker is at a frame of this stream, which has ended: now, or on that worker."""
        self._queue.call_at_rest(do)

    def decode(self, request: Request, payload: memoryview) -> None:
        """Decode one frame and hand it over. Thread: a worker's."""
        started_ns = self._clock.now_ns()
        version = self._config.version
        try:
            try:
                self._fill(request, payload, started_ns)
            finally:
                self._decoded_bytes += len(payload)  # before the frame ends: its answer has the reader look for room
        except Exception as error:  # noqa: BLE001 - any error ends this frame, not the worker
            known = known_error(error)
            self._admission.give_up(version, request, known.outcome)
            self._sink.post([Completion(request, error=known)])
            return
        now_ns = self._clock.now_ns()
        self.time.observe(started_ns, now_ns)
        self._admission.enter_decoded(version, request, now_ns)

    def _fill(self, request: Request, payload: memoryview, now_ns: int) -> None:
        """Put a picture, or a large plain copy, into its buffer. Raises ServiceError. Thread: a worker's."""
        config = self._config
        if request.is_cancelled:
            raise RequestCancelledError("the client left")
        if config.version.feasibility.is_hopeless(now_ns, request.deadline_ns, self.time.mean_ns):
            self.time.doubt(now_ns)
            raise DeadlineExpiredError("the latency budget ran out while the frame waited for a decoder")
        if self._copies:
            copy_into(request.frame, self._inputs_of(payload))
            return
        place = self._files_of(request)
        if place is not None:
            found = file_for_device(payload, place, self._max_image_pixels)
            if isinstance(found, FilePicture):
                self._put_file(request, payload, found)
                return
            config.version.statistics.count_picture(found)
        assert config.image is not None  # noqa: S101 - for mypy: `_copies` is False only for pictures
        picture, start = config.image, request.frame.offsets[config.image.input_index]
        row = request.frame.host.write_view()
        target = row[start : start + picture.nbytes].view(picture.dtype).reshape(picture.shape)
        request.frame_size = decode_into(target, payload, config.encoding, config.size, picture, self._max_image_pixels)
        self._put_constants(row, request.frame.offsets)

    def _files_of(self, request: Request) -> FilePlace | None:
        """Return where the frame of a request has room for a JPEG file; None: the CPU decodes it. Thread: any."""
        return self._config.version.arena.files_of(request.frame) if self._is_jpeg else None

    def _put_file(self, request: Request, payload: memoryview, file: FilePicture) -> None:
        """Put a JPEG file into its buffer as it came: the device of its batch decodes it."""
        row = request.frame.host.write_view()
        row[file.offset : file.offset + file.nbytes] = np.frombuffer(payload[: file.nbytes], np.uint8)
        self._put_constants(row, request.frame.offsets)
        request.picture, request.frame_size = file, file.size
        self._config.version.statistics.count_picture(DecodedBy.DEVICE)

    def _put_constants(self, row: NDArray[np.uint8], offsets: tuple[int, ...]) -> None:
        """Write the model's other inputs, which every frame has."""
        assert self._config.image is not None  # noqa: S101 - for mypy: as above
        for index, constant in self._config.image.constant_inputs:
            row[offsets[index] : offsets[index] + len(constant)] = np.frombuffer(constant, np.uint8)

    def _inputs_of(self, payload: memoryview) -> list[memoryview]:
        ends = self._input_ends
        return [payload[start:end] for start, end in itertools.pairwise(ends)]


def _has_the_layout(encoding: int, size: tuple[int, int], picture: PictureInput) -> bool:
    """Whether a payload is the model's only input as it stands."""
    if picture.constant_inputs or _PLAIN.get(encoding) != picture.color_order or picture.values.dtype != "uint8":
        return False
    if picture.values.layout == "NCHW" and picture.channels > 1:
        return False
    if size != (picture.width, picture.height):
        return False
    placement = placement_of(picture, size)
    return placement.resized == size and placement.left == placement.top == 0


def _decode(item: _Encoded) -> None:
    item.decoder.decode(item.request, item.payload)


def known_error(error: Exception) -> ServiceError:
    """Return how a frame ends that met an error: a bug of ours, or no memory, ends it alone and goes to the log."""
    if isinstance(error, ServiceError):
        return error
    log.error("frame failed", exc_info=error)
    return internal(error)

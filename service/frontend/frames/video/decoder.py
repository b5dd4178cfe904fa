"""Access units of one stream to buffers that hold the model's inputs: the counterpart of `frames.decoder` for video.

Theory of operation
    A unit is decoded although its own result is not wanted any more, because later pictures need it. So a unit and its
    request part: the request may end early (superseded, expired, no permit), and the unit stays in the work queue
    without it. A worker takes the units in order, one at a time, and has the stream's `UnitDecoder` while it does.

Thread: the event loop's.
"""

from collections.abc import Callable

from forebay_server.service.clock import Clock
from forebay_server.service.frontend.admission import Admission
from forebay_server.service.frontend.frames.opening import StreamConfig
from forebay_server.service.frontend.frames.video.limits import VideoPlace
from forebay_server.service.frontend.frames.video.unit_decoder import Unit, UnitDecoder
from forebay_server.service.pipeline.shares import Share
from forebay_server.service.request import CompletionSink, Delivery, FrameBuffer, Request
from forebay_server.service.worker_pool import WorkerPool, WorkQueue, WorkStep

MOST_WAITING_BYTES = 32 << 20  # of a stream's units that wait to be decoded, as for pictures
MOST_WAITING_UNITS = 1024  # each takes memory beside its bytes, and many are answered already: they were refused


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
        self._config = config
        self._is_latest = config.delivery is Delivery.LATEST
        self._pool = pool
        self._queue: WorkQueue[Unit] = WorkQueue(pool, _run)
        self._is_ending = False
        self._pushed_bytes = 0
        self._pushed_units = 0
        self._requested: list[int] = []  # numbers of a LATEST stream's units that may wait with a request, oldest first
        self._units = UnitDecoder(config, sink, clock, admission, max_image_pixels, place)  # the worker's
        self.time = self._units.time

    @property
    def has_room(self) -> bool:
        """Whether another frame may be read: a frame that waits to be decoded keeps its message. Thread: any.

        A worker makes room without telling; `FrameStream.look` wakes a reader for which nothing else happens.
        """
        waiting_bytes = self._pushed_bytes - self._units.decoded_bytes
        return waiting_bytes <= MOST_WAITING_BYTES and self._queue.waiting_count < MOST_WAITING_UNITS

    def buffer_of(self, payload: memoryview, share: Share) -> FrameBuffer:  # noqa: ARG002 - as for pictures
        """Take a permit of `share` and a buffer. Raises OverloadedError: there is no permit."""
        return self._config.version.arena.lease(share)

    def push(self, request: Request, payload: memoryview, received_ns: int, *, is_next: bool) -> None:
        """Have a worker decode a frame and hand its picture to the former, after those before it."""
        if self._is_latest:
            self._requested.append(self._pushed_units)
        self._push(Unit(self._units, request, payload, is_next, received_ns))

    def pass_by(self, payload: memoryview, received_ns: int, *, is_next: bool) -> None:
        """Have a worker decode a frame that was refused: later ones need its picture."""
        self._push(Unit(self._units, None, payload, is_next, received_ns))

    def supersede(self) -> list[Request]:
        """Take back the requests of frames that no worker has begun; the frames are decoded nevertheless.

        The oldest keeps its request: while decoding lags, every frame has a newer one behind it before it is decoded,
        and no picture would ever be executed.
        """
        kept: list[int] = []
        requests: list[Request] = []

        def take(number: int, unit: Unit) -> None:
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
            self._queue.push(Unit(self._units, None, None, is_next=True, received_ns=0))

    def take_waiting(self) -> list[Request]:
        """Drop the frames that no worker has begun, and return their requests."""
        taken = self._queue.take_waiting()
        self._pushed_bytes -= sum(len(unit.payload) for unit in taken if unit.payload is not None)
        return [unit.request for unit in taken if unit.request is not None]

    def call_at_rest(self, do: Callable[[], None]) -> None:
        """Have a worker free the decoder, then call `do`, once none is at a frame of this stream, which has ended."""

        def rest() -> None:
            self._units.close()
            do()

        # A worker's: to free a device's memory takes milliseconds, and the queue may be at rest on the event loop.
        self._queue.call_at_rest(lambda: self._pool.submit_result(rest))

    def _push(self, unit: Unit) -> None:
        self._pushed_bytes += len(unit.payload or b"")
        self._pushed_units += 1
        self._queue.push(unit)


def _run(unit: Unit) -> WorkStep | None:
    return unit.decoder.run(unit)

"""Track ids for the results of one stream, in the order of the stream, without holding up the event loop.

Theory of operation
    The tracker must see the frames in their order, and an update with encoding takes 0.3 to 1.3 ms (1 to 100 objects).
    Results come in any order. So the event loop keeps the places of the stream's frames; the results at their head go
    to a worker together, which updates the tracker, puts the ids in, encodes, and posts them back. The next ones wait
    until these are back: one worker at a time has the tracker, and no lock is needed. Frames without a result
    (superseded, expired, refused, failed) are skipped: the tracker predicts over the gap by their capture times.

Owner: the event loop's thread; `_Job.run` is a worker's, which has the tracker while the job runs.
"""

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
import structlog

from forebay_server.service.clock import Clock
from forebay_server.service.errors import internal
from forebay_server.service.frontend.frames.outbox import Place
from forebay_server.service.frontend.frames.stream_time import StreamTime
from forebay_server.service.frontend.frames.track_request import TrackRequest
from forebay_server.service.frontend.frames.typed import encode_tracked
from forebay_server.service.request import Completion, CompletionSink
from forebay_server.service.results.detection import Detection
from forebay_server.service.tracks.state import TrackStateError
from forebay_server.service.tracks.tracker import Tracker
from forebay_server.service.worker_pool import WorkerPool

log = structlog.get_logger(__name__)

STATE_INTERVAL_NS = 250_000_000
"""Between two states that a client gets. Tracks end after 1 s unseen, so a state must be younger than that when the
client has reconnected; one of 20 tracks has 1.5 KB."""


class StreamTracks:
    """See the module.

    Args:
        tracker: begun anew or restored; owned from now on.
        is_continued: whether it was restored.
        least_score: detections below it are tracked and not sent.
        pool: runs the updates.
        sink: takes the results back to the event loop.
        clock: source of monotonic nanoseconds.

    Attributes:
        is_continued: as given.
        on_tracked: called with each place and its completion; it answers the place and calls `go_on`.
    """

    def __init__(
        self,
        tracker: Tracker,
        pool: WorkerPool,
        sink: CompletionSink,
        clock: Clock,
        *,
        is_continued: bool,
        least_score: float,
    ) -> None:
        self.is_continued = is_continued
        self.on_tracked: Callable[[Place, Completion], None] = _nothing
        self._updates = _Updates(tracker, clock, least_score)
        self._pool = pool
        self._sink = sink
        self._places: deque[Place] = deque()  # in the order of the stream, from the first that is not tracked
        self._ended: dict[Place, Completion] = {}  # results that wait for their turn
        self._at_worker: dict[int, Place] = {}  # by the request's id

    def add(self, place: Place) -> None:
        """Take the place of a frame that was read."""
        self._places.append(place)

    def came(self, place: Place, completion: Completion) -> None:
        """Take the end of a frame, and pass it to `on_tracked`: now if it has no result, else in its turn."""
        if completion.error is not None or completion.result is None:
            self.on_tracked(place, completion)
        else:
            self._ended[place] = completion
            self.go_on()

    def go_on(self) -> None:
        """Give the results at the head to a worker, unless one has the tracker."""
        if self._at_worker:
            return
        ready: list[tuple[Place, Completion]] = []
        while self._places:
            place = self._places[0]
            if (completion := self._ended.pop(place, None)) is not None:
                ready.append((place, completion))
            elif place.answer is None:
                break
            self._places.popleft()
        if ready:
            for place, completion in ready:
                self._at_worker[completion.request.id] = place
                completion.request.on_completion = self._tracked
            self._pool.submit_result(_Job(self._updates, ready, self._sink).run)

    def end_soon(self) -> None:
        """Send the state with every result from now on: no more frames come, and the client may reconnect."""
        self._updates.state_interval_ns = 0

    def clear(self) -> None:
        """Forget every frame: the client has gone."""
        self._places.clear()
        self._ended.clear()
        self._at_worker.clear()
        self.on_tracked = _nothing

    def _tracked(self, completion: Completion) -> None:
        place = self._at_worker.pop(completion.request.id, None)
        if place is not None:
            self.on_tracked(place, completion)  # which calls `go_on`


class _Updates:
    """The tracker, its time, and when its state was last sent. Owner: the worker that has the stream's job."""

    def __init__(self, tracker: Tracker, clock: Clock, least_score: float) -> None:
        self.state_interval_ns = STATE_INTERVAL_NS  # written by the event loop
        self._tracker = tracker
        self._clock = clock
        self._least_score = np.float32(least_score)
        self._time = StreamTime()
        self._state_ns: int | None = None

    def take(self, place: Place, completion: Completion) -> None:
        """Update the tracker by a result; put the ids into it and encode it."""
        found: Sequence[Detection] = completion.result
        corners = np.array([item.box_pixels for item in found], np.float32).reshape(-1, 4)
        if not corners.any():  # a tensor of which the client did not give the size in pixels
            corners = np.array([item.box for item in found], np.float32).reshape(-1, 4)
        ids = self._tracker.update(
            self._time.read(place.capture_time_us, place.timeline.received_ns),
            corners,
            np.array([item.score for item in found], np.float32),
            np.array([item.class_id for item in found], np.int64),
        )
        completion.result = tuple(
            item._replace(track_id=number)
            for item, number in zip(found, ids.tolist(), strict=True)
            if item.score >= self._least_score
        )
        completion.encoded = encode_tracked(completion.result, self._state_to_send())

    def _state_to_send(self) -> bytes:
        now_ns = self._clock.now_ns()
        if self._state_ns is not None and now_ns - self._state_ns < self.state_interval_ns:
            return b""
        self._state_ns = now_ns
        return self._tracker.state()


class _Job:
    """Results of one stream, in order, for one worker."""

    def __init__(self, updates: _Updates, results: Sequence[tuple[Place, Completion]], sink: CompletionSink) -> None:
        self._updates = updates
        self._results = results
        self._sink = sink

    def run(self) -> None:
        """Update the tracker by each result, and post them. Thread: a worker's."""
        for place, completion in self._results:
            try:
                self._updates.take(place, completion)
            except Exception as error:  # a bug ends this frame alone, and its stream goes on
                log.exception("frame could not be tracked")
                completion.error = internal(error)
        self._sink.post([completion for _, completion in self._results])


def open_tracks(request: TrackRequest, pool: WorkerPool, sink: CompletionSink, clock: Clock) -> StreamTracks:
    """Return the tracks of a stream that opens: those of its state, or none if it has no usable state."""
    tracker, is_continued = None, False
    if request.state:
        try:
            tracker, is_continued = Tracker.restore(request.state, request.settings), True
        except TrackStateError as error:
            log.info("tracks begin anew", reason=str(error))
    return StreamTracks(
        tracker or Tracker(request.settings),
        pool,
        sink,
        clock,
        is_continued=is_continued,
        least_score=request.least_score,
    )


def _nothing(_: Place, __: Completion) -> None:
    pass

"""One stream's records in the journal: how each frame ended, and now and then a picture for the operator's page.

Owner: the event loop's thread.
"""

from collections.abc import Callable
from dataclasses import dataclass

from forebay.wire import frames_pb2 as pb
from forebay_server.service.errors import ServiceError
from forebay_server.service.frontend.frames.outbox import Answer, Place
from forebay_server.service.journal.events import FrameEvent, StreamRecord
from forebay_server.service.journal.pictures import Snapshot
from forebay_server.service.pictures.preview import Preview


@dataclass(slots=True, eq=False)
class _Kept:
    """A frame that the operator's page asked for, until its result leaves."""

    place: Place
    payload: memoryview
    preview: Preview | None


class StreamRecorder:
    """See the module.

    Args:
        record: the stream in the journal.
        tell: appends to the journal.
        encoding: forebay.v1 Encoding of its frames.
        is_video: whether a frame's payload alone shows nothing.
        finds_objects: whether results are detections.
    """

    def __init__(
        self,
        record: StreamRecord,
        tell: Callable[[FrameEvent], None],
        encoding: int,
        *,
        is_video: bool = False,
        finds_objects: bool = False,
    ) -> None:
        self.record = record
        self.picture = record.picture
        self._tell = tell
        self._encoding = encoding
        self._is_video = is_video
        self._finds_objects = finds_objects
        self._kept: _Kept | None = None

    def came(self, place: Place, payload: memoryview) -> Preview | None:
        """A frame was read: keep it if the operator's page asked for one. Of video, return what is to be filled."""
        if self.picture is None or not self.picture.is_wanted:
            return None
        self.picture.is_wanted = False
        preview = Preview() if self._is_video else None
        self._kept = _Kept(place, payload, preview)
        return preview

    def ended(self, place: Place, answer: Answer) -> None:
        """A frame's result leaves; `timeline.built_ns` has been stamped."""
        times, capture_time_us = place.timeline, place.capture_time_us
        if isinstance(answer, ServiceError):
            self._tell(FrameEvent(self.record, times, answer.outcome, None, capture_time_us))
        else:
            request, result = answer.request, answer.result
            outcome = None if answer.error is None else answer.error.outcome
            found = len(result) if self._finds_objects and result is not None else -1
            self._tell(
                FrameEvent(
                    self.record, times, outcome, request.deadline_ns, capture_time_us, None, request.frame_size, found
                )
            )
        if self._kept is not None and self._kept.place is place:
            self._show(place, answer, self._kept)

    def forget(self) -> None:
        """The stream has ended."""
        self._kept = None

    def _show(self, place: Place, answer: Answer, kept: _Kept) -> None:
        """Leave a frame with its result where the operator's page finds it; one that did not end well gives way."""
        self._kept = None
        if self.picture is None:
            return
        if isinstance(answer, ServiceError) or answer.error is not None:
            self.picture.is_wanted = self.picture.is_looked_at
            return
        results = answer.result or ()
        size, seq, built_ns = answer.request.frame_size, place.seq, place.timeline.built_ns
        if kept.preview is None:
            self.picture.put(Snapshot(kept.payload, self._encoding, size, results, seq, built_ns))
        else:
            small = memoryview(kept.preview.pixels)
            self.picture.put(Snapshot(small, pb.ENCODING_RGB8, kept.preview.size, results, seq, built_ns, size))

"""The data path's records for the observer: tuples appended to three bounded deques, and nothing else.

Theory of operation
    The threads of the data path append (one C call that takes no lock) and never read. The observer
    (`service.observe.observer`) takes all records off once a second on a separate thread, computes, and keeps the
    results. If it falls behind, the oldest frames and batches are lost; no thread ever waits for it.

    A frame is appended when its result is built, since its timeline is complete then. A batch is appended when its
    outputs are readable. A stream that closes is appended with its final counts, which are exact even if frames were
    lost.

Thread: `frames`, `opened` and `closed` by the event loop, `batches` by the thread that ran the d2h stage: its own, or
the former's (docs/adr/0070); a version that is unloaded closes its record on the thread that closes it. Only the
observer takes records off.
"""

import enum
import itertools
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from forebay_server.service.clock import Clock
from forebay_server.service.errors import Outcome
from forebay_server.service.journal.pictures import PictureSlot
from forebay_server.service.journal.statistics import outcome_of
from forebay_server.service.request import Completion, Timeline

MAX_FRAMES = 65_536  # one second at 65,000 frames; 12 MB when full
MAX_BATCHES = 16_384
MAX_ARRAYS = 256
REQUESTS = "(Open Inference)"  # name of that protocol's requests where cameras have names

TraceContext = Mapping[str, str]
"""W3C trace context as a client sent it, unchecked: `traceparent`, and `tracestate` if there is one."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The client of a stream, and the kind of its frames. Constant.

    Attributes:
        address: of its client, `host:port`; `unix` for the unix socket; empty if it is not known.
        encoding: of its frames, in lower case as on the command line; empty if it is not known.
        budget_ms: default latency budget; None for no deadline.
    """

    address: str = ""
    encoding: str = ""
    budget_ms: float | None = None


UNKNOWN_ORIGIN = Origin()


class Ending(enum.Enum):
    """How a stream ended. The values are labels of a metric."""

    ENDED = "ended"  # its client ended it in order
    LOST = "lost"  # its connection broke, or its client cancelled the call
    SLOW = "slow"  # its client took no results for too long
    REFUSED = "refused"  # the server ended it with an error


@dataclass(slots=True, eq=False)
class StreamRecord:
    """One stream in the observer's view.

    Attributes:
        name: the camera's name; any text, chosen by its client.
        model: and version that serve it.
        version: decimal number.
        protocol: `frames` or `inference`.
        uid: unique in this server.
        origin: its client, and the kind of its frames.
        picture: holder of its latest frame; None unless settings and client allow it.
        trace: trace context of its client; None if there is none or no spans are made.
        index: row of the observer's tables; -1 until it has one. Written by the observer alone.
    """

    name: str
    model: str
    version: str
    protocol: str
    uid: int
    trace: TraceContext | None = None
    picture: PictureSlot | None = None
    origin: Origin = UNKNOWN_ORIGIN
    index: int = -1


class FrameEvent(NamedTuple):
    """How one frame or request ended."""

    stream: StreamRecord
    timeline: Timeline
    outcome: Outcome | None  # None for OK
    deadline_ns: int | None
    capture_time_us: int = 0  # on the client's clock; 0 for none, as on the wire
    trace: TraceContext | None = None  # of a request that has its own
    size: tuple[int, int] = (0, 0)  # width and height of the picture as sent; zeros where there is none
    found: int = -1  # objects in its result; -1 where none were looked for


class ClosedEvent(NamedTuple):
    """The end of a stream, with the outcomes of its frames."""

    stream: StreamRecord
    outcomes: Mapping[Outcome, int]
    ending: Ending = Ending.ENDED


class BatchEvent(NamedTuple):
    """One batch whose outputs are readable. Times in ns on the service's clock."""

    label: str  # MODEL.VERSION
    lane: int
    id: int
    rows: int
    executed_rows: int
    formed_ns: int
    upload_start_ns: int
    upload_end_ns: int
    execute_start_ns: int
    execute_end_ns: int
    download_start_ns: int
    download_end_ns: int


class Journal:
    """See the module's theory of operation.

    Args:
        first_uid: streams are numbered from here on.

    Attributes:
        rows: frames of front-end processes, as `service.observe.frames.read_events` makes columns of them; their places
            are not known yet.
    """

    def __init__(self, first_uid: int = 1) -> None:
        self.rows: deque[NDArray[np.int64]] = deque(maxlen=MAX_ARRAYS)
        self.frames: deque[FrameEvent] = deque(maxlen=MAX_FRAMES)
        self.batches: deque[BatchEvent] = deque(maxlen=MAX_BATCHES)
        self.closed: deque[ClosedEvent] = deque(maxlen=MAX_FRAMES)
        self.opened: deque[StreamRecord] = deque(maxlen=MAX_FRAMES)
        self._next_uid = itertools.count(first_uid).__next__

    def open(
        self,
        name: str,
        model: str,
        version: str,
        protocol: str = "frames",
        *,
        trace: TraceContext | None = None,
        picture: PictureSlot | None = None,
        origin: Origin = UNKNOWN_ORIGIN,
    ) -> StreamRecord:
        """Record a new stream. Thread: any."""
        record = StreamRecord(name, model, version, protocol, self._next_uid(), trace, picture, origin)
        self.opened.append(record)
        return record

    def close(self, record: StreamRecord, outcomes: Mapping[Outcome, int], ending: Ending = Ending.ENDED) -> None:
        """Record the end of a stream, with the outcomes of its frames. Thread: any."""
        self.closed.append(ClosedEvent(record, dict(outcomes), ending))


class RequestJournal:
    """Records one version's Open Inference requests in a journal. They belong to no stream: all together are one.

    Thread: the event loop's.
    """

    def __init__(self, journal: Journal, model: str, version: str, clock: Clock) -> None:
        self._journal = journal
        self._model = model
        self._version = version
        self._clock = clock
        self._record: StreamRecord | None = None  # from the first request on

    def ended(self, completion: Completion, trace: TraceContext | None = None) -> None:
        """Record a request that is about to be answered."""
        request = completion.request
        request.timeline.built_ns = self._clock.now_ns()
        outcome = outcome_of(completion)
        told = None if outcome is Outcome.OK else outcome
        event = FrameEvent(self._open(), request.timeline, told, request.deadline_ns, trace=trace)
        self._journal.frames.append(event)

    def refused(self, received_ns: int, outcome: Outcome, trace: TraceContext | None = None) -> None:
        """Record a request that was refused before it came to the former."""
        timeline = Timeline(received_ns=received_ns, built_ns=self._clock.now_ns())
        self._journal.frames.append(FrameEvent(self._open(), timeline, outcome, None, trace=trace))

    def close(self) -> None:
        """Close the record: the version takes no more requests."""
        if self._record is not None:
            self._journal.close(self._record, {})

    def _open(self) -> StreamRecord:
        if self._record is None:
            self._record = self._journal.open(REQUESTS, self._model, self._version, "inference")
        return self._record

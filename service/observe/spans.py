"""Chooses and makes the spans for a tracing system: one per batch, and one for one frame in N.

Knows no tracing library.

Theory of operation
    The observer hands over every frame and batch that it takes off the journal. A chosen frame becomes a span with a
    child for each stage, below the span of its client if the client sent a W3C trace context. A batch waits for one
    tick, so that most of its frames have ended, and then becomes a span that links to the chosen ones among them. A
    frame that ends later links to its batch instead.

    Frames are chosen at gaps drawn evenly from 1 to 2 N - 1, so one in N of any camera: counting to N would choose the
    same camera again and again where cameras send in step.

    The number of spans a second is bounded. Frames and batches beyond it, and spans for which the sink raises, are
    counted in `dropped`. No exception of a sink reaches the observer.

Owner: the observer's thread. No code here runs on the data path.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from forebay_server.service.errors import Outcome
from forebay_server.service.journal.events import BatchEvent, FrameEvent, TraceContext

log = structlog.get_logger(__name__)

MAX_FRAMES_PER_TICK = 200  # a frame with its stages costs 0.3 ms, a batch 0.06
MAX_BATCHES_PER_TICK = 1000
REMEMBERED_BATCHES = 2048  # batches whose frames may still come

AttributeValue = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Span:
    """One span. Times in ns on the service's clock.

    Attributes:
        name: constant for its kind.
        start_ns: start time.
        end_ns: end time.
        attributes: of the frame or batch.
        is_served: whether the span stands for work that a client asked for.
        is_error: whether the work failed.
        trace: of the parent, in another process.
        children: spans inside this one.
    """

    name: str
    start_ns: int
    end_ns: int
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    is_served: bool = False
    is_error: bool = False
    trace: TraceContext | None = None
    children: "tuple[Span, ...]" = ()


class SpanSink(Protocol):
    """Receives spans. Thread: the observer's."""

    def emit(self, span: Span, links: Sequence[Any]) -> Any:  # noqa: ANN401 - the library's own kind of reference
        """Take a span and return a reference for links; None if the span is not kept. Blocks: no."""
        ...

    def close(self) -> None:
        """Send the remaining spans, for a few seconds at most."""
        ...


class Tracing:
    """See the module's theory of operation.

    Args:
        every_frames: N of one frame in N.
        sink: receives the spans.
        draw: returns a uniform whole number from 1 to its argument.
    """

    def __init__(self, every_frames: int, sink: SpanSink, draw: Callable[[int], int]) -> None:
        self.made = 0
        self.dropped = 0
        self._every = every_frames
        self._sink = sink
        self._draw = draw
        self._has_failed = False
        self._skip = self._next_gap() - 1
        self._frames: list[FrameEvent] = []
        self._batches: list[BatchEvent] = []  # of this tick
        self._waiting: list[BatchEvent] = []  # of the previous tick
        self._known: OrderedDict[int, BatchEvent] = OrderedDict()
        self._emitted: dict[int, Any] = {}  # batch -> reference for links to it; of those in `_known`
        self._links: defaultdict[int, list[Any]] = defaultdict(list)  # batch -> references of its chosen frames

    def see_frames(self, events: Sequence[FrameEvent]) -> None:
        """Choose among frames that have ended."""
        while self._skip < len(events):
            if len(self._frames) < MAX_FRAMES_PER_TICK:
                self._frames.append(events[self._skip])
            else:
                self.dropped += 1
            self._skip += self._next_gap()
        self._skip -= len(events)

    def see_batch(self, batch: BatchEvent) -> None:
        """Record a batch."""
        if len(self._batches) >= MAX_BATCHES_PER_TICK:
            self.dropped += 1
            return
        self._batches.append(batch)
        self._known[batch.id] = batch
        if len(self._known) > REMEMBERED_BATCHES:
            forgotten, _ = self._known.popitem(last=False)
            self._emitted.pop(forgotten, None)

    @property
    def undelivered(self) -> int:
        """Spans that were made and did not reach the collector; 0 where the sink does not count them."""
        return getattr(self._sink, "undelivered", 0)

    def tick(self) -> None:
        """Make the spans that are due."""
        frames, self._frames = self._frames, []
        batches, self._waiting, self._batches = self._waiting, self._batches, []
        for event in frames:
            self._emit_frame(event)
        for batch in batches:
            self._emitted[batch.id] = self._emit(batch_span(batch), self._links.pop(batch.id, ()))

    def close(self) -> None:
        """Make every remaining span, and end the sink."""
        self.tick()
        self.tick()
        try:
            self._sink.close()
        except Exception:
            log.exception("the last spans were not sent")

    def _emit_frame(self, event: FrameEvent) -> None:
        batch_id = event[1].batch_id
        batch = self._known.get(batch_id)
        earlier = self._emitted.get(batch_id)
        reference = self._emit(frame_span(event, batch), () if earlier is None else (earlier,))
        if batch is not None and batch_id not in self._emitted and reference is not None:
            self._links[batch_id].append(reference)

    def _emit(self, span: Span, links: Sequence[Any]) -> Any:  # noqa: ANN401
        try:
            reference = self._sink.emit(span, links)
        except Exception:
            self.dropped += 1
            if not self._has_failed:  # log once: a line for every span would fill the disk
                log.exception("a span was not taken; forebay_spans_dropped_total counts those to come")
            self._has_failed = True
            return None
        self.made += 1 + len(span.children)
        return reference

    def _next_gap(self) -> int:
        return self._draw(2 * self._every - 1)


def batch_span(batch: BatchEvent) -> Span:
    """Describe a batch, from formed to read back."""
    model, _, version = batch.label.rpartition(".")
    return Span(
        "batch",
        batch.formed_ns,
        max(batch.formed_ns, batch.download_end_ns),
        {
            "forebay.model": model,
            "forebay.model.version": version,
            "forebay.batch.id": batch.id,
            "forebay.batch.rows": batch.rows,
            "forebay.batch.executed_rows": batch.executed_rows,
            "forebay.lane": batch.lane,
            "forebay.h2d_ms": (batch.upload_end_ns - batch.upload_start_ns) / 1e6,
            "forebay.execute_ms": (batch.execute_end_ns - batch.execute_start_ns) / 1e6,
            "forebay.d2h_ms": (batch.download_end_ns - batch.download_start_ns) / 1e6,
        },
    )


def frame_span(event: FrameEvent, batch: BatchEvent | None) -> Span:
    """Describe a frame, from read() to result, with its stages; the device stages lie where its batch lay."""
    record, timeline, outcome, deadline_ns, _, own_trace, *_ = event
    durations = timeline.durations_us()
    attributes: dict[str, AttributeValue] = {
        "forebay.model": record.model,
        "forebay.model.version": record.version,
        "forebay.stream": record.name,
        "forebay.stream.id": record.uid,
        "forebay.outcome": (outcome or Outcome.OK).value,
        "forebay.batch.id": timeline.batch_id,
        **{f"forebay.{stage}_ms": getattr(durations, stage) / 1e3 for stage in durations.__slots__},
    }
    if deadline_ns is not None:
        attributes["forebay.late"] = outcome is None and timeline.built_ns > deadline_ns
    end_ns = max(timeline.received_ns, timeline.built_ns)
    return Span(
        "frame",
        timeline.received_ns,
        end_ns,
        attributes,
        is_served=True,
        is_error=outcome in _ERRORS,
        trace=own_trace or record.trace,
        children=_stages(event, batch),
    )


_ERRORS = frozenset({Outcome.FAILED, Outcome.CORRUPT, Outcome.LOST, Outcome.INTERNAL})


def _stages(event: FrameEvent, batch: BatchEvent | None) -> tuple[Span, ...]:
    timeline = event[1]
    instants = [
        ("receive", timeline.received_ns, timeline.validated_ns),
        ("decode", timeline.validated_ns, timeline.admitted_ns),
    ]
    if batch is None:
        instants.append(("queue", timeline.admitted_ns, timeline.readable_ns))
    else:
        instants += [
            ("queue", timeline.admitted_ns, batch.upload_start_ns),
            ("h2d", batch.upload_start_ns, batch.upload_end_ns),
            ("execute", batch.execute_start_ns, batch.execute_end_ns),
            ("d2h", batch.download_start_ns, batch.download_end_ns),
        ]
    instants.append(("deliver", timeline.readable_ns, timeline.built_ns))
    return tuple(Span(name, start_ns, end_ns) for name, start_ns, end_ns in instants if 0 < start_ns < end_ns)

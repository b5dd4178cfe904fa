"""The spans of frames and batches, and their form in OpenTelemetry's own library."""

import random

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from structlog.testing import capture_logs

from forebay_server.service.errors import Outcome
from forebay_server.service.observe import spans
from forebay_server.service.observe.observer import Observer
from forebay_server.service.observe.otlp import OtlpSink
from forebay_server.service.observe.spans import Tracing
from tests.support.observing import MS, Observed

WALL_AHEAD_NS = 1_700_000_000 * 10**9
TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01", "tracestate": "vendor=1"}
NOT_SAMPLED = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-00"}


class Traced(Observed):
    """An observer that makes spans, kept by the library's in-memory exporter."""

    def __init__(self, draw, every=1):
        super().__init__()
        self.exporter = InMemorySpanExporter()
        processor = SimpleSpanProcessor(self.exporter)
        sink = OtlpSink(processor, self.clock, lambda: self.clock.now_ns() + WALL_AHEAD_NS)
        self.tracing = Tracing(every, sink, draw)
        self.observer = Observer(self.journal, self.clock, self.tracing)

    def spans(self, name=None):
        finished = self.exporter.get_finished_spans()
        return [span for span in finished if name is None or span.name == name]


def always_one(_):
    return 1


@pytest.fixture
def traced():
    return Traced(always_one)


def test_a_frame_becomes_a_span_with_its_stages(traced):
    record = traced.open("gate")
    traced.batch(2, batch_id=7)
    traced.clock.advance(20 * MS)
    traced.frame(record, total_ms=20, batch_id=7, deadline_ms=15)
    traced.tick()
    (frame,) = traced.spans("frame")
    assert frame.kind is SpanKind.SERVER
    assert frame.parent is None
    assert frame.end_time - frame.start_time == 20 * MS
    assert frame.end_time == traced.clock.now_ns() - 250 * MS + WALL_AHEAD_NS
    assert frame.attributes["forebay.stream"] == "gate"
    assert frame.attributes["forebay.outcome"] == "ok"
    assert frame.attributes["forebay.late"] is True
    assert frame.attributes["forebay.execute_ms"] == 8
    assert frame.attributes["forebay.total_ms"] == 20
    children = [span for span in traced.spans() if span.parent and span.parent.span_id == frame.context.span_id]
    assert [child.name for child in children] == ["receive", "decode", "queue", "h2d", "execute", "d2h", "deliver"]
    execute = children[4]
    assert (execute.start_time - WALL_AHEAD_NS, execute.end_time - execute.start_time) == (
        1_000 * 10**9 + 3 * MS,
        8 * MS,
    )


def test_a_batch_becomes_a_span_that_links_to_its_frames(traced):
    record = traced.open()
    traced.batch(0, batch_id=7, rows=2)
    for _ in range(2):
        traced.frame(record, batch_id=7)
    traced.tick()
    assert traced.spans("batch") == []  # its other frames may still come
    traced.tick()
    (batch,) = traced.spans("batch")
    assert batch.attributes["forebay.batch.rows"] == 2
    assert batch.attributes["forebay.execute_ms"] == 8
    assert batch.kind is SpanKind.INTERNAL
    assert {link.context.span_id for link in batch.links} == {f.context.span_id for f in traced.spans("frame")}
    assert len(batch.links) == 2


def test_a_frame_that_ends_long_after_its_batch_links_to_it(traced):
    record = traced.open()
    traced.batch(0, batch_id=7)
    traced.tick()
    traced.tick()
    traced.frame(record, batch_id=7)
    traced.tick()
    (batch,), (frame,) = traced.spans("batch"), traced.spans("frame")
    assert [link.context.span_id for link in frame.links] == [batch.context.span_id]


def test_the_clients_span_is_the_parent(traced):
    traced.frame(traced.open(trace=PARENT))
    traced.tick()
    (frame,) = traced.spans("frame")
    assert f"{frame.context.trace_id:032x}" == TRACE_ID
    assert f"{frame.parent.span_id:016x}" == PARENT_ID
    assert frame.context.trace_state.get("vendor") == "1"


def test_a_requests_own_context_wins_over_its_streams(traced):
    own = {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01"}
    traced.frame(traced.open(trace=PARENT), trace=own)
    traced.tick()
    assert f"{traced.spans('frame')[0].context.trace_id:032x}" == "1" * 32


def test_a_client_that_does_not_sample_has_no_spans(traced):
    record = traced.open(trace=NOT_SAMPLED)
    traced.batch(0, batch_id=7)
    traced.frame(record, batch_id=7)
    traced.tick()
    traced.tick()
    assert [span.name for span in traced.spans()] == ["batch"]
    assert traced.spans("batch")[0].links == ()


@pytest.mark.parametrize("traceparent", ["", "nonsense", "00-0-0-0", f"00-{'0' * 32}-{PARENT_ID}-01", "\n" * 40])
def test_a_context_that_is_none_begins_a_trace_of_its_own(traced, traceparent):
    traced.frame(traced.open(trace={"traceparent": traceparent, "tracestate": "==,,"}))
    traced.tick()
    assert traced.spans("frame")[0].parent is None


def test_a_frame_that_failed_is_an_error_and_one_that_was_replaced_is_not(traced):
    record = traced.open()
    traced.frame(record, outcome=Outcome.FAILED)
    traced.frame(record, outcome=Outcome.SUPERSEDED)
    traced.tick()
    failed, superseded = traced.spans("frame")
    assert failed.status.status_code is StatusCode.ERROR
    assert superseded.status.status_code is StatusCode.UNSET
    assert superseded.attributes["forebay.outcome"] == "superseded"
    assert superseded.attributes["forebay.batch.id"] == 0


def test_one_frame_in_n_of_every_camera_though_they_send_in_step():
    chance = random.Random(5)  # noqa: S311
    traced = Traced(lambda most: chance.randint(1, most), every=20)
    cameras = [traced.open(f"camera {index}") for index in range(20)]
    for _ in range(200):
        for _ in range(5):
            for camera in cameras:
                traced.frame(camera)
        traced.tick()
    chosen = [span.attributes["forebay.stream"] for span in traced.spans("frame")]
    assert 900 < len(chosen) < 1100  # of 20,000
    counts = [chosen.count(camera.name) for camera in cameras]
    assert min(counts) > 25
    assert max(counts) < 80


def test_spans_beyond_a_bound_are_counted_and_not_made(traced):
    record = traced.open()
    for _ in range(spans.MAX_FRAMES_PER_TICK + 5):
        traced.frame(record)
    for index in range(spans.MAX_BATCHES_PER_TICK + 7):
        traced.batch(index, batch_id=index + 1)
    traced.tick()
    traced.tick()
    assert len(traced.spans("frame")) == spans.MAX_FRAMES_PER_TICK
    assert len(traced.spans("batch")) == spans.MAX_BATCHES_PER_TICK
    assert traced.tracing.dropped == 12


def test_what_is_remembered_is_bounded(traced):
    record = traced.open()
    for number in range(10):
        for index in range(800):
            traced.batch(0, batch_id=number * 800 + index + 1)
        for batch_id in (number * 800 + 1, 1):  # one of now, one long forgotten
            traced.frame(record, batch_id=batch_id)
        traced.tick()
    assert len(traced.tracing._known) == spans.REMEMBERED_BATCHES
    assert len(traced.tracing._emitted) <= spans.REMEMBERED_BATCHES
    assert len(traced.tracing._links) <= 2


def test_the_end_makes_what_waits():
    traced = Traced(always_one)
    traced.batch(0, batch_id=1)
    traced.tick()
    traced.tracing.close()
    assert len(traced.spans("batch")) == 1


class MoodySink:
    """Takes spans by default; otherwise `emit` and `close` raise."""

    def __init__(self):
        self.taken = []
        self.is_broken = True

    def emit(self, span, links):
        if self.is_broken:
            raise RuntimeError("the library's bug")
        self.taken.append((span.name, tuple(links)))
        return len(self.taken)

    close = emit


def test_a_sink_that_raises_costs_its_spans_and_nothing_else():
    observed, sink = Observed(), MoodySink()
    tracing = Tracing(1, sink, always_one)
    observer = observed.observer = Observer(observed.journal, observed.clock, tracing)
    record = observed.open()
    with capture_logs() as logs:
        for batch_id in (1, 2):
            observed.batch(0, batch_id=batch_id)
            observed.frame(record, batch_id=batch_id)
            observed.tick(1000)
    observed.tick(1000)
    assert [line["log_level"] for line in logs] == ["error"]
    assert (tracing.made, tracing.dropped) == (0, 4)
    assert observer.models[0].outcomes.sum() == 2
    assert [sample.ended for sample in observer.models[0].history][-3:] == [1, 1, 0]
    sink.is_broken = False
    observed.batch(0, batch_id=3)
    observed.frame(record, batch_id=3)
    observed.tick()
    observed.tick()
    assert sink.taken == [("frame", ()), ("batch", (1,))]
    assert tracing.dropped == 4


def test_a_sink_that_cannot_be_closed_holds_up_no_end():
    tracing = Tracing(1, MoodySink(), always_one)
    with capture_logs() as logs:
        tracing.close()
    assert len(logs) == 1

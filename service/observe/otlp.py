"""Spans to OpenTelemetry, sent by OTLP over gRPC. The only file that imports that library (`forebay[otel]`).

The library's own variables set the destination and the number of waiting spans: OTEL_EXPORTER_OTLP_ENDPOINT,
OTEL_EXPORTER_OTLP_HEADERS, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER, OTEL_BSP_*. An unreachable
collector costs spans and a line in the log, nothing else: spans wait in a queue of bounded length, and a thread of the
library sends them.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence

import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from forebay_server.service.clock import Clock
from forebay_server.service.journal.events import TraceContext
from forebay_server.service.observe.spans import Span
from forebay_server.service.version import VERSION

log = structlog.get_logger(__name__)

CLOSE_TIMEOUT_S = 3.0  # for a collector that does not answer at the end
COMPLAINT_INTERVAL_S = 60.0  # the library complains at every try
_NOWHERE = Context()


class CountingExporter(SpanExporter):
    """Counts the spans that another exporter could not deliver. Thread: the library's; `undelivered` is read on any."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self.undelivered = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans. Blocks: while the exporter tries."""
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            if result is not SpanExportResult.SUCCESS:
                self.undelivered += len(spans)
        return result

    def shutdown(self) -> None:
        """End the exporter."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """See the library."""
        return self._exporter.force_flush(timeout_millis)


class OtlpSink:
    """Implements service.observe.spans.SpanSink.

    Args:
        processor: takes spans that have ended.
        clock: the service's clock, used for the times of spans.
        wall_ns: returns nanoseconds since 1970.
        exporter: counts its losses, if it is known.
    """

    def __init__(
        self,
        processor: SpanProcessor,
        clock: Clock,
        wall_ns: Callable[[], int] = time.time_ns,
        exporter: CountingExporter | None = None,
    ) -> None:
        self._exporter = exporter
        self._clock = clock
        self._wall_ns = wall_ns
        self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("forebay", VERSION)
        self._propagator = TraceContextTextMapPropagator()

    @property
    def undelivered(self) -> int:
        """Spans that the collector did not get."""
        return 0 if self._exporter is None else self._exporter.undelivered

    def emit(self, span: Span, links: Sequence[SpanContext]) -> SpanContext | None:
        """Take a span with its children; return None if the library's sampler, or the client's, rejects it."""
        offset_ns = self._wall_ns() - self._clock.now_ns()  # computed each time: the wall clock may be set
        return self._emit(span, links, self._parent(span.trace), offset_ns)

    def _emit(self, span: Span, links: Sequence[SpanContext], parent: Context, offset_ns: int) -> SpanContext | None:
        started = self._tracer.start_span(
            span.name,
            parent,
            SpanKind.SERVER if span.is_served else SpanKind.INTERNAL,
            span.attributes,
            [Link(link) for link in links],
            start_time=span.start_ns + offset_ns,
        )
        if span.is_error:
            started.set_status(Status(StatusCode.ERROR))
        if started.is_recording() and span.children:
            inside = set_span_in_context(started, _NOWHERE)
            for child in span.children:
                self._emit(child, (), inside, offset_ns)
        started.end(span.end_ns + offset_ns)
        return started.get_span_context() if started.get_span_context().trace_flags.sampled else None

    def _parent(self, trace: TraceContext | None) -> Context:
        return _NOWHERE if trace is None else self._propagator.extract(trace, Context())

    def close(self) -> None:
        """Send the remaining spans. Blocks: until the collector has them, at most `CLOSE_TIMEOUT_S`."""
        closing = threading.Thread(target=self._provider.shutdown, name="otlp-closing", daemon=True)
        closing.start()
        closing.join(CLOSE_TIMEOUT_S)


def open_sink(clock: Clock) -> OtlpSink:
    """Return a sink that sends to the destination in the environment. Raises ValueError for invalid variables."""
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if os.environ.get(name, "grpc") != "grpc":
            raise ValueError(f"{name} is {os.environ[name]!r}; give grpc, and an endpoint that speaks it (port 4317)")
    library_log = logging.getLogger("opentelemetry")
    library_log.propagate = False
    library_log.handlers = [_Complaints(clock)]
    exporter = CountingExporter(OTLPSpanExporter())
    return OtlpSink(BatchSpanProcessor(exporter), clock, exporter=exporter)


def _resource() -> Resource:
    found = Resource.create({SERVICE_VERSION: VERSION})
    if str(found.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        found = found.merge(Resource({SERVICE_NAME: "forebay"}))
    return found


class _Complaints(logging.Handler):
    """Turns the library's log lines into events of this service, at most one a minute. Thread: any."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(logging.WARNING)
        self._clock = clock
        self._next_ns = 0
        self._left_out = 0

    def emit(self, record: logging.LogRecord) -> None:
        now_ns = self._clock.now_ns()
        if now_ns < self._next_ns:
            self._left_out += 1
            return
        self._next_ns = now_ns + int(COMPLAINT_INTERVAL_S * 1e9)
        log.warning("traces are not delivered", detail=record.getMessage(), left_out=self._left_out)
        self._left_out = 0

"""Opening the way to a collector: valid environments, and the treatment of the library's complaints."""

import json
import logging
import threading

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from forebay_server.service.log import configure_logs
from forebay_server.service.observe.otlp import COMPLAINT_INTERVAL_S, CountingExporter, OtlpSink, open_sink
from forebay_server.service.observe.spans import Span
from forebay_server.service.observe.tracing import TracingError, open_tracing
from forebay_server.service.standard_error import STANDARD_ERROR
from tests.support.clock import ManualClock
from tests.support.logs import forget_configuration


@pytest.fixture
def clock():
    return ManualClock(10**12)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
    ],
)
def test_a_variable_that_cannot_be_used_is_an_error_that_says_so(monkeypatch, clock, name, value):
    monkeypatch.setenv(name, value)
    before = threading.active_count()
    with pytest.raises(TracingError, match=f"OTEL_.*{value}"):
        open_tracing(100, clock)
    assert threading.active_count() == before


def test_none_asked_for_is_none_made(clock):
    assert open_tracing(0, clock) is None


def test_the_librarys_sampler_and_switch_are_obeyed(monkeypatch, clock):
    for name, value in (("OTEL_TRACES_SAMPLER", "always_off"), ("OTEL_SDK_DISABLED", "true")):
        monkeypatch.setenv(name, value)
        exporter = InMemorySpanExporter()
        sink = OtlpSink(SimpleSpanProcessor(exporter), clock)
        child = Span("queue", 10, 20)
        assert sink.emit(Span("frame", 10, 20, children=(child,)), ()) is None
        assert exporter.get_finished_spans() == ()
        monkeypatch.delenv(name)


def test_complaints_are_one_line_of_ours_a_minute(monkeypatch, clock, capfd):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    configure_logs("json")
    try:
        sink = open_sink(clock)
        library_log = logging.getLogger("opentelemetry.exporter.otlp")
        for _ in range(50):
            library_log.warning("the collector is away\n at %s", "collector:4317")
        clock.advance(int(COMPLAINT_INTERVAL_S * 1e9))
        library_log.warning("still")
        sink.close()
    finally:
        forget_configuration()
        logging.getLogger("opentelemetry").handlers = []
        assert STANDARD_ERROR.close(10)
    told = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [(line["event"], line["left_out"]) for line in told] == [
        ("traces are not delivered", 0),
        ("traces are not delivered", 49),
    ]
    assert told[0]["detail"] == "the collector is away\n at collector:4317"


class Away(SpanExporter):
    def export(self, spans):
        return SpanExportResult.FAILURE

    def shutdown(self):
        pass


def test_spans_that_no_collector_takes_are_counted(clock):
    counted = CountingExporter(Away())
    sink = OtlpSink(SimpleSpanProcessor(counted), clock, exporter=counted)
    for _ in range(3):
        sink.emit(Span("frame", 10, 20), ())
    assert sink.undelivered == 3

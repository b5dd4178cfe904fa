"""The forebay_stream* metrics. Their series are bounded, and camera names are cut.

There are the `TOP_STREAMS` with the largest p99 and one series for the rest, the `MAX_SILENT` first silent ones, and
the `MAX_GONE` cameras that went away last.
"""

from collections import Counter
from collections.abc import Sequence

from forebay_server.service.errors import Outcome
from forebay_server.service.journal.events import Ending, StreamRecord
from forebay_server.service.observe.exposition_text import Labels, Text
from forebay_server.service.observe.gone import GoneCamera
from forebay_server.service.observe.observer import Observer
from forebay_server.service.observe.recent import StreamReport, stream_reports

TOP_STREAMS = 20
MAX_SILENT = 20
MAX_GONE = 20
MAX_NAME = 64
REST = "(rest)"


def render_streams(text: Text, observer: Observer, now_ns: int, inference_streams: int) -> None:
    """Write the metrics of open streams, and of those that have gone."""
    _open(text, observer, now_ns, inference_streams)
    _gone(text, observer.gone.latest(now_ns), now_ns)


def _open(text: Text, observer: Observer, now_ns: int, inference_streams: int) -> None:
    models = observer.models
    counts = observer.streams.count_of("frames", len(models))  # the requests of a version are one record, and no stream
    frames = [
        ({"model": each.model, "version": each.version, "protocol": "frames"}, count)
        for each, count in zip(models, counts, strict=True)
    ]
    of_requests = {"model": "", "version": "", "protocol": "inference"}  # each message names its model
    text.family("forebay_streams", "gauge", "Open streams", [*frames, (of_requests, inference_streams)])
    streams = stream_reports(observer, now_ns, TOP_STREAMS + MAX_SILENT)
    silent = [report for report in streams.reports if report.numbers.silent_s is not None][:MAX_SILENT]
    sending = [report for report in streams.reports if report.numbers.silent_s is None]
    top, others = sending[:TOP_STREAMS], sending[TOP_STREAMS:]
    rates = [(_labels(report), report.numbers.rates.of(Outcome.OK)) for report in top]
    if streams.count > len(top) + len(silent):
        rest = streams.rest_ok_per_s + sum(report.numbers.rates.of(Outcome.OK) for report in others)
        rates.append(({"stream": REST, "id": "", "model": ""}, rest))
    text.family("forebay_stream_frames_per_second", "gauge", "OK frames per second over the last 10 s", rates)
    for name, help_text, values in (
        ("forebay_stream_in_time_ratio", "Share of frames in time, last 10 s", [r.numbers.rates.share for r in top]),
        ("forebay_stream_latency_p99_seconds", "p99 from read() to result, last 10 s", [_s(r.p99_ms) for r in top]),
        ("forebay_stream_result_age_seconds", "Median age of results, last 10 s", [_s(r.numbers.age_ms) for r in top]),
    ):
        known = [(_labels(report), value) for report, value in zip(top, values, strict=True) if value is not None]
        text.family(name, "gauge", help_text, known)
    text.family("forebay_streams_silent", "gauge", "Open streams whose frames stay out", [({}, streams.silent)])
    text.family(
        "forebay_stream_silent_seconds",
        "gauge",
        "Time since the latest frame of streams whose frames stay out",
        [(_labels(report), report.silence_s) for report in silent],
    )


def _gone(text: Text, gone: Sequence[GoneCamera], now_ns: int) -> None:
    counts = Counter(camera.ending for camera in gone)
    text.family(
        "forebay_streams_gone",
        "gauge",
        "Cameras that went away in the last 15 minutes and are not back, by how",
        [({"ending": ending.value}, counts[ending]) for ending in Ending],
    )
    text.family(
        "forebay_stream_gone_seconds",
        "gauge",
        "Time since a camera went away",
        [
            ({**_labels_of(each.record), "ending": each.ending.value}, (now_ns - each.at_ns) / 1e9)
            for each in gone[:MAX_GONE]
        ],
    )


def _labels(report: StreamReport) -> Labels:
    return _labels_of(report.record)


def _labels_of(record: StreamRecord) -> Labels:
    return {"stream": record.name[:MAX_NAME], "id": str(record.uid), "model": record.model}


def _s(ms: float | None) -> float | None:
    return None if ms is None else ms / 1e3

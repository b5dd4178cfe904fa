"""The forebay_* metrics in Prometheus' text format. docs/observability.md describes every name (a test compares)."""

import platform
import time
from collections.abc import Mapping, Sequence

from forebay_server.engines.device import DeviceMemory
from forebay_server.service.journal.process import ProcessNumbers
from forebay_server.service.journal.streams import LEAVING_WHY, OPENED_HOW, REFUSED_WHY, StreamNumbers
from forebay_server.service.observe.exposition_text import Labels, Text
from forebay_server.service.observe.frames import OUTCOMES, STAGES
from forebay_server.service.observe.gauges import Gauges, ServerGauges, VersionGauges
from forebay_server.service.observe.histograms import BOUNDS_S, HistogramSnapshot
from forebay_server.service.observe.model_counts import ModelCounts
from forebay_server.service.observe.observer import Observer
from forebay_server.service.observe.spans import Tracing
from forebay_server.service.observe.stream_exposition import render_streams
from forebay_server.service.version import VERSION

BATCH_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128)
DEVICE_STAGES = ("h2d", "execute", "d2h")


def render(observer: Observer, gauges: Gauges, now_ns: int) -> str:
    """Return the forebay_* part of /metrics. Thread: the observer's."""
    text = Text()
    _models(text, observer.models)
    versions, server = gauges.versions(), gauges.server()
    _versions(text, versions)
    _busy(text, observer.models, versions)
    render_streams(text, observer, now_ns, server.streams.inference)
    _devices(text, gauges.devices())
    _server(text, server)
    _stream_counts(text, server.streams)
    _processes(text, gauges.processes())
    _engines(text, gauges.processes())
    _spans(text, observer.tracing)
    return "\n".join(text.lines) + "\n"


def _models(text: Text, models: Sequence[ModelCounts]) -> None:
    def histogram(
        model: ModelCounts, shot: HistogramSnapshot, **more: str
    ) -> tuple[Labels, Sequence[float], Sequence[int], float]:
        return {**_of(model), **more}, BOUNDS_S, shot.counts, shot.sum_s

    text.histogram(
        "forebay_frame_latency_seconds",
        "Time of frames that ended well by stage; total is from read() to result",
        [
            histogram(model, model.histograms.snapshot(row), stage=stage)
            for model in models
            for row, stage in enumerate(STAGES)
        ],
    )
    text.histogram(
        "forebay_result_age_seconds",
        "Capture to result on the camera's clock, beyond the quickest frame's way to the server",
        [histogram(model, model.ages.snapshot(0)) for model in models],
    )
    text.family(
        "forebay_frames_total",
        "counter",
        "Frames by outcome",
        [
            ({**_of(model), "outcome": outcome.value}, count)
            for model in models
            for outcome, count in zip(OUTCOMES, model.outcomes.tolist(), strict=True)
        ],
    )
    text.family(
        "forebay_frames_late_total",
        "counter",
        "Frames that ended well after their deadline",
        [(_of(model), model.late) for model in models],
    )
    text.histogram("forebay_batch_size", "Rows of executed batches", [_batch_sizes(model) for model in models])
    text.family(
        "forebay_executed_rows_total",
        "counter",
        "Rows that engines ran, padding included",
        [(_of(model), model.executed_rows) for model in models],
    )
    text.family(
        "forebay_stage_busy_seconds_total",
        "counter",
        "Device time of each stage, all lanes together",
        [
            ({**_of(model), "stage": stage}, ns / 1e9)
            for model in models
            for stage, ns in zip(DEVICE_STAGES, model.busy_ns, strict=True)
        ],
    )


def _batch_sizes(model: ModelCounts) -> tuple[Labels, Sequence[float], Sequence[int], float]:
    counts = [0] * (len(BATCH_BOUNDS) + 1)
    sizes = model.batches.copy()
    for rows, count in sizes.items():
        counts[next((i for i, bound in enumerate(BATCH_BOUNDS) if rows <= bound), len(BATCH_BOUNDS))] += count
    return _of(model), BATCH_BOUNDS, counts, sum(rows * count for rows, count in sizes.items())


def _versions(text: Text, versions: Sequence[VersionGauges]) -> None:
    labels = [(_of(version), version) for version in versions]
    for name, help_text, values in (
        ("forebay_pending_requests", "Requests that wait for a batch", [v.pending for v in versions]),
        ("forebay_pending_streams", "Streams with pending requests", [v.pending_streams for v in versions]),
        ("forebay_batches_in_flight", "Batches formed and not yet computed", [v.in_flight for v in versions]),
        ("forebay_instances", "Instances of the model, one lane each", [v.instances for v in versions]),
        ("forebay_slots", "Slots of all lanes", [v.slots for v in versions]),
        ("forebay_slots_in_use", "Slots that hold a batch", [v.slots_in_use for v in versions]),
        ("forebay_cost_drift_ratio", "Executions now over executions as calibrated", [v.drift_ratio for v in versions]),
        ("forebay_bind_guard_seconds", "How early batches are bound, for safety", [v.guard_s for v in versions]),
        (
            "forebay_egress_estimate_seconds",
            "Time allowed for egress",
            [v.egress_s for v in versions],
        ),
    ):
        text.family(
            name, "gauge", help_text, [(label, value) for (label, _), value in zip(labels, values, strict=True)]
        )
    text.family(
        "forebay_executions_total",
        "counter",
        "Executions as one launch of a graph, or plain; engines that have both ways",
        [({**label, "way": way}, count) for label, version in labels for way, count in version.launches.items()],
    )
    text.family(
        "forebay_pictures_total",
        "counter",
        "JPEG frames of models whose GPU decodes, by who decoded them and why the CPU",
        [({**label, "by": by}, count) for label, version in labels for by, count in version.pictures.items()],
    )


def _devices(text: Text, devices: Mapping[str, DeviceMemory]) -> None:
    used = [({"device": device}, memory.used_bytes) for device, memory in devices.items()]
    total = [({"device": device}, memory.total_bytes) for device, memory in devices.items()]
    text.family("forebay_device_memory_used_bytes", "gauge", "Device memory in use, all processes", used)
    text.family("forebay_device_memory_total_bytes", "gauge", "Device memory in total", total)


def _spans(text: Text, tracing: Tracing | None) -> None:
    if tracing is not None:
        text.family("forebay_spans_total", "counter", "OpenTelemetry spans made", [({}, tracing.made)])
        text.family(
            "forebay_spans_dropped_total", "counter", "Frames and batches that became no span", [({}, tracing.dropped)]
        )
        text.family(
            "forebay_spans_undelivered_total", "counter", "Spans that no collector took", [({}, tracing.undelivered)]
        )


def _server(text: Text, server: ServerGauges) -> None:
    for name, kind, help_text, value in (
        ("forebay_ready", "gauge", "1 while the server takes streams", int(server.is_ready)),
        ("forebay_load", "gauge", "Share of its capacity that the server uses, last second", server.load.utilization),
        ("forebay_permits", "gauge", "Frames that may be held before execution", server.permits),
        ("forebay_permits_in_use", "gauge", "Frames held before execution", server.permits_in_use),
        ("forebay_worker_threads", "gauge", "Workers for decoding and results", server.worker_threads),
        ("forebay_workers_busy", "gauge", "Workers at work", server.workers_busy),
        (
            "forebay_worker_jobs_waiting",
            "gauge",
            "Results and streams that wait for a worker",
            server.worker_jobs_waiting,
        ),
        (
            "forebay_observer_cpu_seconds_total",
            "counter",
            "CPU time of the observer's thread",
            time.thread_time(),
        ),
        (
            "forebay_log_lines_dropped_total",
            "counter",
            "Lines of the log that standard error did not take",
            server.log_lines_dropped,
        ),
        ("forebay_connections", "gauge", "Connections, without those of the unix socket", server.reception.connections),
        ("forebay_reception_bytes", "gauge", "Messages begun and not ended", server.reception.held_bytes),
        (
            "forebay_reception_waiting",
            "gauge",
            "Requests not read yet: no room",
            server.reception.waiting,
        ),
        ("process_start_time_seconds", "gauge", "When this process began, since 1970", server.started_s),
        ("process_resident_memory_bytes", "gauge", "Resident memory of this process", server.memory_bytes),
        ("process_cpu_seconds_total", "counter", "CPU time of this process", server.cpu_s),
        ("process_threads", "gauge", "Threads of this process", server.threads),
        ("process_open_fds", "gauge", "Open file descriptors", server.open_files),
    ):
        text.family(name, kind, help_text, [({}, value)])
    given_up = [({"why": why}, server.reception.ended.get(why, 0)) for why in ("late", "full", "cut")]
    text.family("forebay_reception_given_up_total", "counter", "Messages that did not end, by why", given_up)
    build = {"version": VERSION, "python": platform.python_version()}
    text.family("forebay_build_info", "gauge", "1; the labels say what runs", [(build, 1)])


def _stream_counts(text: Text, streams: StreamNumbers) -> None:
    text.family("forebay_draining", "gauge", "1 once the server was asked to stop", [({}, int(streams.is_draining))])
    for name, help_text, label, values, counts in (
        ("opened", "Streams opened, by how", "how", OPENED_HOW, streams.opened),
        ("refused", "Streams refused, by why", "why", REFUSED_WHY, streams.refused),
        ("asked_to_leave", "Streams that got Reconnect, by why", "why", LEAVING_WHY, streams.asked_to_leave),
    ):
        samples = [({label: value}, counts.get(value, 0)) for value in values]
        text.family(f"forebay_streams_{name}_total", "counter", help_text, samples)


def _busy(text: Text, models: Sequence[ModelCounts], versions: Sequence[VersionGauges]) -> None:
    """Write how busy the instances of each serving version were in the last whole seconds."""
    recent = {(model.model, model.version): model.recent() for model in models if model.history}
    found = [(v, recent.get((v.model, v.version))) for v in versions]
    ratios = [(_of(v), r.busy_ns[1] / (r.seconds * v.instances * 1e9)) for v, r in found if r and v.instances]
    text.family("forebay_execute_busy_ratio", "gauge", "Share of its instances' time that executions took", ratios)


def _engines(text: Text, processes: Sequence[ProcessNumbers]) -> None:
    """Write the engine processes beside the first; nothing where there is one."""
    others = [process for process in processes if process.connections is None]
    labels = [{"process": process.name} for process in others]
    for name, kind, help_text, values in (
        ("forebay_engine_cpu_seconds_total", "counter", "CPU time of engine processes", [p.cpu_s for p in others]),
        ("forebay_engine_memory_bytes", "gauge", "Resident memory of them", [p.memory_bytes for p in others]),
    ):
        if others:
            text.family(name, kind, help_text, list(zip(labels, values, strict=True)))


def _processes(text: Text, processes: Sequence[ProcessNumbers]) -> None:
    processes = [process for process in processes if process.connections is not None]
    for name, kind, help_text, values in (
        (
            "forebay_front_end_cpu_seconds_total",
            "counter",
            "CPU time of each",
            [p.cpu_s for p in processes],
        ),
        ("forebay_front_end_memory_bytes", "gauge", "Resident memory of them", [p.memory_bytes for p in processes]),
        ("forebay_front_end_streams", "gauge", "Open streams of frames in them", [p.streams or 0 for p in processes]),
    ):
        labels = [{"process": process.name} for process in processes]
        text.family(name, kind, help_text, list(zip(labels, values, strict=True)))


def _of(version: ModelCounts | VersionGauges) -> Labels:
    return {"model": version.model, "version": version.version}

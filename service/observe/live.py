"""Messages for the live page, as JSON: one a second for all readers, none without readers.

Names are data here and text in the page; they are never markup.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from forebay_server.service.clock import Clock
from forebay_server.service.observe.frames import OK, OUTCOME, STAGES, STREAM, Rows, durations_us
from forebay_server.service.observe.gauges import Gauges, VersionGauges
from forebay_server.service.observe.histograms import grouped_quantiles
from forebay_server.service.observe.observer import ModelCounts, Observer, Sample
from forebay_server.service.observe.recent import StreamReport, recent_rows, stream_reports
from forebay_server.service.observe.timeline import strip

MAX_STREAMS = 100  # rows of the table; the slowest ones if there are more
MAX_NAME = 80
STRIP_SECONDS = 2
STRIP_BATCHES = 300
RATE_SECONDS = 5
STAGE_FRAMES = 4096  # the latest; enough for a p99
LEAST_CPU_NS = 500_000_000  # processes are accounted in ticks of 10 ms


class Feed:
    """One message for many readers; a slow reader misses messages, and no thread waits for it.

    Owner: the observer's thread.
    """

    def __init__(self, limit: int) -> None:
        self.watchers = 0
        self._limit = limit
        self.latest = ""
        self._published = asyncio.Event()

    def publish(self, message: str) -> None:
        """Hand a message to all waiting readers."""
        self.latest = message
        self._published.set()
        self._published = asyncio.Event()

    async def subscribe(self, first: str) -> AsyncGenerator[str, None]:
        """Yield `first`, then every message published while the reader waits.

        Ends at once if there are too many readers.
        """
        if self.watchers >= self._limit:
            yield "retry: 10000\n\n"
            return
        self.watchers += 1
        try:
            yield first
            while True:
                published = self._published
                await published.wait()
                yield self.latest
        finally:
            self.watchers -= 1
            if not self.watchers:
                self.latest = ""  # out of date when the next reader comes


class LiveState:
    """Makes the messages. Owner: the observer's thread."""

    def __init__(self, observer: Observer, gauges: Gauges, clock: Clock) -> None:
        self._observer = observer
        self._gauges = gauges
        self._clock = clock
        self._at_ns = clock.now_ns()
        self._cpu_s = gauges.server().cpu_s
        self._cpu = 0.0  # cores in use

    def history(self) -> str:
        """Return the latency of the last minutes, sent once to each new reader."""
        history = {_label(model): [_sample(sample) for sample in model.history] for model in self._observer.models}
        return event("history", {"now_s": self._clock.now_ns() / 1e9, "models": history})

    def state(self) -> str:
        """Return the message of this second."""
        now_ns = self._clock.now_ns()
        server = self._gauges.server()
        self._measure_cpu(server.cpu_s, now_ns)
        gauges = {f"{each.model}.{each.version}": each for each in self._gauges.versions()}
        window = recent_rows(self._observer, now_ns)
        streams = stream_reports(self._observer, now_ns, MAX_STREAMS, window)
        models = self._observer.models
        is_shown = [_label(model) in gauges or bool(model.history and model.history[-1].ended) for model in models]
        stages = self._stages(window[0])
        return event(
            "state",
            {
                "now_s": now_ns / 1e9,
                "ready": server.is_ready,
                "cpu": round(self._cpu, 2),
                "memory_mb": round(server.memory_bytes / 1e6),
                "devices": {
                    name: [memory.used_bytes, memory.total_bytes] for name, memory in self._gauges.devices().items()
                },
                "permits": [server.permits_in_use, server.permits],
                "workers": [server.workers_busy, server.worker_threads],
                "models": [
                    self._model(model, gauges.get(_label(model)), stages.get(index, {}))
                    for index, model in enumerate(models)
                    if is_shown[index]
                ],
                "idle_models": sorted(set(gauges) - {_label(model) for model in models}),
                "stream_count": streams.count,
                "streams": [_stream(report) for report in streams.reports],
                "strip": {
                    "us": STRIP_SECONDS * 1_000_000,
                    "batches": strip(self._observer, now_ns - STRIP_SECONDS * 1_000_000_000, STRIP_BATCHES),
                },
            },
        )

    def _measure_cpu(self, cpu_s: float, now_ns: int) -> None:
        elapsed_ns = now_ns - self._at_ns
        if elapsed_ns > LEAST_CPU_NS:
            self._cpu = (cpu_s - self._cpu_s) * 1e9 / elapsed_ns
            self._cpu_s, self._at_ns = cpu_s, now_ns

    def _stages(self, rows: Rows) -> dict[int, dict[str, list[float]]]:
        """Return p50 and p99 in ms of every stage over the last seconds, by model."""
        rows = rows[:, -STAGE_FRAMES:]
        is_wanted = (rows[OUTCOME] == OK) & (rows[STREAM] >= 0)
        rows = rows if is_wanted.all() else rows[:, is_wanted]
        models = self._observer.streams.models[rows[STREAM]]
        durations = durations_us(rows)
        stages: dict[int, dict[str, list[float]]] = {}
        for stage, values in zip(STAGES, durations, strict=True):
            for model, quantiles in grouped_quantiles(models, values, (0.5, 0.99)).items():
                stages.setdefault(model, {})[stage] = [us / 1e3 for us in quantiles]
        return stages

    def _model(
        self, model: ModelCounts, gauges: VersionGauges | None, stages: Mapping[str, list[float]]
    ) -> dict[str, Any]:
        label = _label(model)
        samples = list(model.history)[-RATE_SECONDS:]
        seconds = max(1, len(samples))
        shown: dict[str, Any] = {
            "name": label,
            "offered": round(sum(sample.ended for sample in samples) / seconds, 1),
            "goodput": round(sum(sample.in_time for sample in samples) / seconds, 1),
            "batches": {str(rows): count for rows, count in sorted(model.last_batches.items())},
            "busy": [round(ns / 1e9, 3) for ns in model.last_busy_ns],
            "stages": stages,
            "sample": _sample(samples[-1]) if samples else None,
        }
        if gauges is not None:
            shown |= {
                "pending": gauges.pending,
                "in_flight": gauges.in_flight,
                "slots": [gauges.slots_in_use, gauges.slots],
                "drift": round(gauges.drift_ratio, 2),
                "guard_ms": round(gauges.guard_s * 1e3, 2),
            }
        return shown


def event(name: str, data: Mapping[str, Any]) -> str:
    """Return a server-sent event. JSON escapes line ends, so that a name cannot begin a line."""
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n"


def _stream(report: StreamReport) -> dict[str, Any]:
    outcomes = report.outcomes
    other = sum(count for name, count in outcomes.items() if name not in ("ok", "superseded", "expired"))
    return {
        "id": report.record.uid,
        "name": report.record.name[:MAX_NAME],
        "model": report.record.model,
        "fps": report.fps,
        "p50": report.p50_ms,
        "p99": report.p99_ms,
        "age": report.age_ms,
        "ok": outcomes.get("ok", 0),
        "superseded": outcomes.get("superseded", 0),
        "expired": outcomes.get("expired", 0),
        "late": report.late,
        "other": other,
        "picture": report.record.picture is not None,
    }


def _sample(sample: Sample) -> list[float | None]:
    return [sample.at_s, sample.ended, sample.in_time, sample.p50_ms, sample.p99_ms]


def _label(model: ModelCounts) -> str:
    return f"{model.model}.{model.version}"

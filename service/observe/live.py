"""Messages for the live page, as JSON: one a second for all readers, none without readers.

Names are data here and text in the page; they are never markup.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import Any

from forebay_server.service.clock import Clock
from forebay_server.service.errors import Outcome
from forebay_server.service.observe.camera_diagnosis import diagnose_camera, diagnose_gone
from forebay_server.service.observe.diagnosis import ModelNumbers, diagnose_model
from forebay_server.service.observe.finding import Finding, Rates, Stages
from forebay_server.service.observe.frames import OK, OUTCOME, STAGES, STREAM, Rows, durations_us
from forebay_server.service.observe.gauges import Gauges, ServerGauges, VersionGauges
from forebay_server.service.observe.gone import GoneCamera
from forebay_server.service.observe.histograms import grouped_quantiles
from forebay_server.service.observe.model_counts import RECENT_SECONDS, ModelCounts, Sample
from forebay_server.service.observe.observer import Observer
from forebay_server.service.observe.process_use import ProcessUse
from forebay_server.service.observe.recent import SlowestStreams, StreamReport, recent_rows, stream_reports
from forebay_server.service.observe.samples import GaugeSamples
from forebay_server.service.observe.timeline import strip
from forebay_server.service.version import VERSION

MAX_STREAMS = 200  # rows of the table; those that need attention most if there are more
MAX_GONE_SHOWN = 20
MAX_NAME = 80
STRIP_SECONDS = 2
STRIP_BATCHES = 300
STAGE_FRAMES = 4096  # the latest; enough for a p99


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
        self._samples = GaugeSamples()
        self._processes = ProcessUse()
        self._process_rows: list[dict[str, Any]] = []
        self._began_ns = clock.now_ns()

    def sample(self) -> None:
        """Read the gauges: once a second, whether there is a reader or not."""
        server = self._gauges.server()
        self._samples.add(server, self._gauges.versions())
        self._process_rows = self._processes.rows(server, self._gauges.processes(), self._clock.now_ns())

    def history(self) -> str:
        """Return the latency of the last minutes, by model and by camera; sent once to each new reader."""
        history = {_label(model): [_sample(sample) for sample in model.history] for model in self._observer.models}
        now_ns, streams = self._clock.now_ns(), self._observer.streams
        listed = stream_reports(self._observer, now_ns, MAX_STREAMS).reports
        worst = {str(report.record.uid): streams.worst_ms(report.index) for report in listed}
        return event("history", {"now_s": now_ns / 1e9, "models": history, "worst": worst})

    def state(self) -> str:
        """Return the message of this second."""
        now_ns = self._clock.now_ns()
        server = self._gauges.server()
        gauges = {f"{each.model}.{each.version}": each for each in self._gauges.versions()}
        window = recent_rows(self._observer, now_ns)
        streams = stream_reports(self._observer, now_ns, MAX_STREAMS, window)
        models = self._observer.models
        stages = self._stages(window[0])
        findings = [
            diagnose_model(self._numbers(index, gauges.get(_label(model)), stages.get(index, {}), streams, server))
            for index, model in enumerate(models)
        ]
        is_shown = [_label(model) in gauges or bool(model.history and model.history[-1].ended) for model in models]
        gone = self._observer.gone.latest(now_ns)
        worst = self._observer.streams.latest_worst_ms()
        return event(
            "state",
            {
                "now_s": now_ns / 1e9,
                "version": VERSION,
                "uptime_s": (now_ns - self._began_ns) // 1_000_000_000,
                "ready": server.is_ready,
                "processes": self._process_rows,
                "devices": {
                    name: [memory.used_bytes, memory.total_bytes] for name, memory in self._gauges.devices().items()
                },
                "permits": [server.permits_in_use, server.permits],
                "workers": [server.workers_busy, server.worker_threads],
                "models": [
                    self._model(model, gauges.get(_label(model)), stages.get(index, {}), findings[index])
                    for index, model in enumerate(models)
                    if is_shown[index]
                ],
                "idle_models": sorted(set(gauges) - {_label(model) for model in models}),
                "window_s": round(window[1], 1),
                "stream_count": streams.count,
                "streams": [
                    _stream(report, findings[report.model], gauges) | {"worst": worst[report.index]}
                    for report in streams.reports
                ],
                "gone_count": len(gone),
                "gone": [_gone(camera, now_ns) for camera in gone[:MAX_GONE_SHOWN]],
                "strip": {
                    "us": STRIP_SECONDS * 1_000_000,
                    "batches": strip(self._observer, now_ns - STRIP_SECONDS * 1_000_000_000, STRIP_BATCHES),
                },
            },
        )

    def _numbers(
        self,
        index: int,
        gauges: VersionGauges | None,
        stages: Stages,
        streams: SlowestStreams,
        server: ServerGauges,
    ) -> ModelNumbers:
        model = self._observer.models[index]
        recent = model.recent()
        instances = 1 if gauges is None else max(1, gauges.instances)
        budgets = [each.numbers.budget_ms for each in streams.reports if each.model == index]
        numbers = ModelNumbers(
            Rates(
                {outcome: count / recent.seconds for outcome, count in recent.outcomes.items()},
                recent.late / recent.seconds,
            ),
            [ns / 1e9 / recent.seconds / instances for ns in recent.busy_ns],
            {stage: value for stage, value in stages.items() if stage != "total"},
            shortest_budget_ms=min((budget for budget in budgets if budget is not None), default=None),
            are_workers_busy=self._samples.are_workers_busy(),
            permits=server.permits,
        )
        if gauges is None:
            return numbers
        return replace(
            numbers,
            least_ms=gauges.least_s * 1e3,
            drift=gauges.drift_ratio,
            guard_ms=gauges.guard_s * 1e3,
            are_slots_full=self._samples.are_slots_full(model.model, model.version),
            is_on_gpu=gauges.is_on_gpu,
        )

    def _stages(self, rows: Rows) -> dict[int, dict[str, tuple[float, float]]]:
        """Return p50 and p99 in ms of every stage over the last seconds, by model."""
        rows = rows[:, -STAGE_FRAMES:]
        is_wanted = (rows[OUTCOME] == OK) & (rows[STREAM] >= 0)
        rows = rows if is_wanted.all() else rows[:, is_wanted]
        models = self._observer.streams.models[rows[STREAM]]
        durations = durations_us(rows)
        stages: dict[int, dict[str, tuple[float, float]]] = {}
        for stage, values in zip(STAGES, durations, strict=True):
            for model, (p50, p99) in grouped_quantiles(models, values, (0.5, 0.99)).items():
                stages.setdefault(model, {})[stage] = (p50 / 1e3, p99 / 1e3)
        return stages

    def _model(
        self, model: ModelCounts, gauges: VersionGauges | None, stages: Stages, finding: Finding
    ) -> dict[str, Any]:
        samples = list(model.history)[-RECENT_SECONDS:]
        seconds = max(1, len(samples))
        instances = 1 if gauges is None else max(1, gauges.instances)
        shown: dict[str, Any] = {
            "name": _label(model),
            **_finding(finding),
            "offered": round(sum(sample.ended for sample in samples) / seconds, 1),
            "goodput": round(sum(sample.in_time for sample in samples) / seconds, 1),
            "batches": {str(rows): count for rows, count in sorted(model.last_batches.items())},
            "busy": [round(ns / 1e9 / seconds / instances, 3) for ns in model.recent().busy_ns],
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


def _finding(finding: Finding) -> dict[str, str]:
    return {"cause": finding.cause, "level": finding.level.value, "text": finding.text}


def _stream(report: StreamReport, model: Finding, gauges: Mapping[str, VersionGauges]) -> dict[str, Any]:
    record, numbers = report.record, report.numbers
    rates, share = numbers.rates, numbers.rates.share
    version = gauges.get(f"{record.model}.{record.version}")
    finding = diagnose_camera(numbers, model, 0.0 if version is None else version.least_s * 1e3)
    width, height = numbers.size
    return {
        "id": record.uid,
        "name": record.name[:MAX_NAME],
        "model": record.model,
        **_finding(finding),
        "ok": round(rates.of(Outcome.OK), 1),
        "offered": round(rates.ended, 1),
        "in_time": None if share is None else round(share, 3),
        "p50": numbers.p50_ms,
        "p99": report.p99_ms,
        "age": numbers.age_ms,
        "found": report.found,
        "size": f"{width} x {height}" if width else "",
        "encoding": record.origin.encoding,
        "address": record.origin.address,
        "picture": record.picture is not None,
    }


def _gone(camera: GoneCamera, now_ns: int) -> dict[str, Any]:
    record = camera.record
    return {
        "id": record.uid,
        "name": record.name[:MAX_NAME],
        "model": record.model,
        **_finding(diagnose_gone(camera.ending, (now_ns - camera.at_ns) / 1e9)),
        "encoding": record.origin.encoding,
        "address": record.origin.address,
    }


def _sample(sample: Sample) -> list[float | None]:
    return [sample.at_s, sample.ended, sample.in_time, sample.p50_ms, sample.p99_ms]


def _label(model: ModelCounts) -> str:
    return f"{model.model}.{model.version}"

"""The sections that need no server: each engine alone and behind the pipeline, and the effect of one knob each."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from forebay_server.bench.gpu.lane import Setup, measure_alone, measure_lane
from forebay_server.bench.gpu.plan import Plan
from forebay_server.service.journal.events import BatchEvent

TRACED_BATCHES = 60


def lanes(plan: Plan) -> Iterator[dict[str, Any]]:
    """Engine alone, then the pipeline around it, at every batch size."""
    for network in plan.networks:
        for rows in plan.batch_sizes:
            yield _pair(Setup(network, plan.path(network), plan.device, rows, seconds=plan.seconds), plan)


def _pair(setup: Setup, plan: Plan) -> dict[str, Any]:
    alone = measure_alone(setup)
    lane, batches = measure_lane(setup, alone["batch_ms"] / 1e3)
    if setup.rows == plan.batch_sizes[1]:
        write_trace(batches, plan.work / f"trace-{setup.network}-{setup.rows}.json")
    return setup.facts | {"alone": alone, "lane": lane, "share": lane["rows_per_s"] / alone["rows_per_s"]}


def variants(plan: Plan) -> Iterator[dict[str, Any]]:
    """Change one knob at a time: depth, graphs, memory, instances."""
    for network in plan.networks[-2:]:
        for rows in plan.batch_sizes:
            base = Setup(network, plan.path(network), plan.device, rows, seconds=plan.seconds / 2)
            batch_s = measure_alone(base)["batch_ms"] / 1e3
            for setup in _knobs(base):
                lane, _ = measure_lane(setup, batch_s)
                yield setup.facts | {"lane": lane}
            alone = measure_alone(replace(base, has_graphs=False))
            yield replace(base, has_graphs=False).facts | {"alone": alone}


def _knobs(base: Setup) -> list[Setup]:
    depths = [replace(base, depth=depth) for depth in (1, 2, 3)]
    pageable = [replace(base, is_pinned=False, depth=depth) for depth in (1, 2)]
    several = [replace(base, instances=count) for count in (2, 4)]
    return [*depths, *pageable, replace(base, has_graphs=False), *several]


def write_trace(batches: list[BatchEvent], path: Path) -> None:
    """Write the last batches for Perfetto or chrome://tracing: one row per stage, µs."""
    chosen = batches[-TRACED_BATCHES:]
    origin_ns = min(batch.upload_start_ns for batch in chosen)
    stages = ("upload", "execute", "download")
    events: list[dict[str, Any]] = [
        {"ph": "M", "name": "thread_name", "pid": 1, "tid": tid, "args": {"name": stage}}
        for tid, stage in enumerate(stages)
    ]
    for batch in chosen:
        for tid, stage in enumerate(stages):
            start_ns, end_ns = getattr(batch, f"{stage}_start_ns"), getattr(batch, f"{stage}_end_ns")
            times = {"ts": (start_ns - origin_ns) / 1e3, "dur": (end_ns - start_ns) / 1e3}
            events.append({"ph": "X", "name": f"batch {batch.id}", "pid": 1, "tid": tid, **times})
    path.write_text(json.dumps({"traceEvents": events}))

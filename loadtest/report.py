"""The report of a run as one document: the source of JSON, HTML, Markdown and .hgrm.

Schema `forebay.load/1`: within a version fields are only added. Times are milliseconds, `_s` seconds, rates per second.
A number that the run cannot give is null, and `reasons` has the cause.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from forebay_server.loadtest import histograms
from forebay_server.loadtest.accounting import FAILURES
from forebay_server.loadtest.generator import INTERRUPTED
from forebay_server.loadtest.scenario import Scenario
from forebay_server.loadtest.summary import Summary
from forebay_server.loadtest.tables import MOST_NAMED, by_stream, lost_frames, slowest, timeline
from forebay_server.loadtest.target import TargetInfo, TargetSpec
from forebay_server.loadtest.verdict import (
    MIN_CEILING_RATIO,
    Assertion,
    decide,
    generator_fault,
    judge_assertion,
)

Document = dict[str, Any]
SCHEMA = "forebay.load/1"
_MAX_BLOCKS = 60
BUSY_SHARE = 0.9  # of a core; one process cannot use more


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """The parts of a report besides the numbers of the run.

    `ceiling_per_s`: the generator's rate against the null server; None: not calibrated. `cpu_shares`: of one core, per
    process, over the run.
    """

    started_at: str
    spec: TargetSpec
    info: TargetInfo | None
    frames: str
    processes: int
    hosts: int
    cpu_shares: tuple[float, ...]
    ceiling_per_s: float | None
    good_within_ms: float


def metrics_of(summary: Summary) -> dict[str, float | None]:
    """Return every number that an --assert can name."""
    accounting = summary.accounting
    counts: dict[str, float | None] = dict(accounting.to_dict())
    counters = summary.counters
    seconds = summary.offered_for_s
    offered = accounting.offered
    interval = summary.p99_interval
    return counts | {
        "out_of_order": counters.out_of_order,
        "reconnects": counters.reconnects,
        "broken_streams": counters.broken_streams,
        "dropped_share": (offered - accounting.answered) / offered if offered else None,
        "offered_per_s": offered / seconds if seconds else None,
        "answered_per_s": accounting.answered / seconds if seconds else None,
        "goodput_per_s": summary.good / seconds if seconds else None,
        "goodput_share": summary.good / offered if offered else None,
        "p99_ci_low_ms": interval.low if interval else None,
        "p99_ci_high_ms": interval.high if interval else None,
        **summary.latencies,
    }


def build(scenario: Scenario, summary: Summary, circumstances: Circumstances, assertions: list[Assertion]) -> Document:
    """Return the document of a run."""
    metrics = metrics_of(summary)
    judged = [judge_assertion(assertion, metrics) for assertion in assertions]
    lag_ms, p50_ms = summary.latencies["schedule_lag_p99_ms"], summary.latencies["p50_ms"]
    fault = generator_fault(lag_ms, p50_ms, is_open_loop=scenario.is_open_loop)
    faults = [*([fault] if fault else []), *summary.faults]
    gone = "" if summary.ended_early == INTERRUPTED else summary.ended_early
    verdict, reasons = decide(faults=faults, ended_early=gone, judged=judged, doubts=summary.doubts)
    interval = summary.p99_interval
    return {
        "schema": SCHEMA,
        "started_at": circumstances.started_at,
        "verdict": verdict.value,
        "exit_code": int(verdict.exit_code),
        "reasons": reasons,
        "notes": _notes(scenario, summary, circumstances),
        "scenario": scenario.to_dict() | {"is_open_loop": scenario.is_open_loop},
        "target": asdict(circumstances.spec) | {"shape": list(circumstances.spec.shape)},
        "server": asdict(circumstances.info) if circumstances.info else None,
        "frames": circumstances.frames,
        **metrics,
        "p99_ci_ms": [interval.low, interval.high] if interval else None,
        "p99_ci_method": interval.method if interval else None,
        "samples": summary.samples,
        "warm_up_cut_s": summary.cut_s,
        "duration_s": summary.offered_for_s,
        "good_within_ms": circumstances.good_within_ms,
        "failed_by": {name: summary.counters.answers.get(name, 0) for name in FAILURES},
        "sent_bytes": summary.counters.sent_bytes,
        "late": int(np.count_nonzero(summary.rows["late_by_us"])),
        "batch_size_mean": _batch_size(summary),
        "asserts": [{"text": item.assertion.text, "actual": item.actual, "holds": item.holds} for item in judged],
        "generator": {
            "processes": circumstances.processes,
            "hosts": circumstances.hosts,
            "cpu_shares": list(circumstances.cpu_shares),
            "null_server_ceiling_per_s": circumstances.ceiling_per_s,
        },
        "stages_ms": summary.stages,
        "streams": by_stream(summary.rows, summary.cut_s),
        "timeline": timeline(summary.rows, summary.offered_for_s),
        "slowest": slowest(summary.rows, summary.cut_s),
        "lost_frames": lost_frames(summary.rows),
        **_histograms(summary),
    }


def is_document(value: object) -> bool:
    """Return whether a JSON value is a report that this version can read."""
    return isinstance(value, Mapping) and value.get("schema") == SCHEMA


def _notes(scenario: Scenario, summary: Summary, circumstances: Circumstances) -> list[str]:
    """Return notes for the reader that do not change the verdict."""
    notes = []
    if not scenario.is_open_loop:
        notes.append("closed loop: a slow server slows the load down, so latencies hide queueing; do not compare")
    ceiling, rate = circumstances.ceiling_per_s, summary.accounting.offered / max(summary.offered_for_s, 1e-9)
    if ceiling is not None and ceiling < MIN_CEILING_RATIO * rate:
        notes.append(
            f"the generator reaches {ceiling:.0f} frames/s against a null server, less than"
            f" {MIN_CEILING_RATIO:g} times the {rate:.0f} frames/s of this run: its own cost shows in the latencies"
        )
    if max(circumstances.cpu_shares, default=0.0) > BUSY_SHARE:
        notes.append("a generator process was busy nearly all the time: use more --processes")
    if summary.counters.out_of_order:
        notes.append(f"answers out of order: {summary.counters.out_of_order}")
    if summary.counters.broken_streams:
        notes.append(
            f"streams that broke: {summary.counters.broken_streams}; the first: {summary.counters.first_error}"
        )
    if summary.accounting.lost:
        places = ", ".join(f"stream {frame['stream']} at {frame['due_s']:.2f} s" for frame in lost_frames(summary.rows))
        notes.append(f"never answered: {places}{', ...' if summary.accounting.lost > MOST_NAMED else ''}")
    if summary.accounting.client_dropped:
        notes.append(f"given up by the client ({scenario.policy.value}): {summary.accounting.client_dropped}")
    return notes


def _batch_size(summary: Summary) -> float | None:
    sizes = summary.rows["batch_size"]
    sizes = sizes[sizes > 0]
    return float(sizes.mean()) if len(sizes) else None


def _histograms(summary: Summary) -> Document:
    """Return the latencies as histograms: of the run, and of blocks of time, from which `compare` resamples."""
    span_s = max(summary.offered_for_s - summary.cut_s, 1e-9)
    blocks = max(1, min(_MAX_BLOCKS, int(span_s)))
    owner = np.clip(((summary.due_s - summary.cut_s) / span_s * blocks).astype(np.int64), 0, blocks - 1)
    return {
        "latency_hdr": histograms.encode(summary.latency_ms),
        "service_hdr": histograms.encode(summary.service_ms),
        "latency_blocks": {
            "length_s": span_s / blocks,
            "hdr": [histograms.encode(summary.latency_ms[owner == block]) for block in range(blocks)],
        },
    }

"""What one model version has done so far: counts and durations, as ModelStatistics and the nv_inference_* metrics tell.

Every completion of a version passes through its `CountingSink` on the way to the event loop, so that frames and
Triton requests are counted alike, once each, in one place. A post of executed requests is one batch.

Thread: any; one lock per version, taken once per post.
"""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from service.clock import Clock
from service.errors import Outcome
from service.request import Completion, CompletionSink

REASON_BY_OUTCOME = {
    Outcome.EXPIRED: "REJECTED",
    Outcome.OVERLOADED: "REJECTED",
    Outcome.SUPERSEDED: "REJECTED",
    Outcome.UNAVAILABLE: "REJECTED",
    Outcome.CANCELLED: "CANCELED",
    Outcome.FAILED: "BACKEND",
    Outcome.CORRUPT: "BACKEND",
    Outcome.LOST: "BACKEND",
}
"""Outcome -> the label `reason` of nv_inference_request_failure; OTHER for the rest."""
REASONS = ("REJECTED", "CANCELED", "BACKEND", "OTHER")


@dataclass(slots=True)
class Duration:
    """How often, and how long together."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int, count: int = 1) -> None:
        """Add `count` times that took `ns` together."""
        self.count += count
        self.ns += max(0, ns)


@dataclass(slots=True)
class BatchCounts:
    """Executions of one batch size."""

    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)


@dataclass(slots=True)
class Counts:
    """A snapshot. Durations are sums over requests, except in `batches`.

    Attributes:
        last_inference_ms: milliseconds since 1970; 0 for never.
        rows: executed.
        executions: batches.
        success: requests answered with outputs.
        fail: all other requests.
        queue: arrival to batch, of executed requests.
        compute_input: upload.
        compute_infer: execution.
        compute_output: download.
        failures: requests by reason.
        batches: by rows.
    """

    last_inference_ms: int = 0
    rows: int = 0
    executions: int = 0
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)
    failures: Counter[str] = field(default_factory=Counter)
    batches: dict[int, BatchCounts] = field(default_factory=dict)


class VersionStatistics:
    """See the module."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counts = Counts()

    def observe(self, completions: Sequence[Completion]) -> None:
        """Count the completions of one post."""
        now_ns = self._clock.now_ns()
        with self._lock:
            executed = [completion for completion in completions if completion.outputs is not None]
            if executed:
                self._count_batch(executed)
            for completion in completions:
                self._count_request(completion, now_ns)

    def reset(self) -> None:
        """Forget everything: what came before was calibration."""
        with self._lock:
            self._counts = Counts()

    def refuse(self, outcome: Outcome) -> None:
        """Count a request that was refused before it came to the former."""
        with self._lock:
            self._counts.fail.add(0)
            self._counts.failures[REASON_BY_OUTCOME.get(outcome, "OTHER")] += 1

    def snapshot(self) -> Counts:
        """Return a copy."""
        with self._lock:
            counts = self._counts
            durations = {
                name: replace(getattr(counts, name))
                for name in ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
            }
            batches = {
                rows: BatchCounts(replace(b.compute_input), replace(b.compute_infer), replace(b.compute_output))
                for rows, b in counts.batches.items()
            }
            return replace(counts, **durations, failures=Counter(counts.failures), batches=batches)

    def _count_batch(self, executed: Sequence[Completion]) -> None:
        counts = self._counts
        rows = sum(completion.request.size for completion in executed)
        counts.rows += rows
        counts.executions += 1
        counts.last_inference_ms = time.time_ns() // 1_000_000  # an instant for people, never subtracted
        times = executed[0].request.timeline
        batch = counts.batches.setdefault(rows, BatchCounts())
        batch.compute_input.add(times.h2d_ns)
        batch.compute_infer.add(times.execute_ns)
        batch.compute_output.add(times.d2h_ns)

    def _count_request(self, completion: Completion, now_ns: int) -> None:
        counts, times = self._counts, completion.request.timeline
        total_ns = now_ns - (times.received_ns or completion.request.arrival_ns)
        if completion.error is not None:
            counts.fail.add(total_ns)
            counts.failures[REASON_BY_OUTCOME.get(completion.error.outcome, "OTHER")] += 1
            return
        counts.success.add(total_ns)
        counts.queue.add(times.formed_ns - completion.request.arrival_ns)
        counts.compute_input.add(times.h2d_ns)
        counts.compute_infer.add(times.execute_ns)
        counts.compute_output.add(times.d2h_ns)


class CountingSink:
    """Implements service.request.CompletionSink: counts, then hands on."""

    def __init__(self, sink: CompletionSink, statistics: VersionStatistics) -> None:
        self._sink = sink
        self._statistics = statistics

    def post(self, completions: Sequence[Completion]) -> None:
        """Hand over completions. Thread: any. Blocks: no."""
        self._statistics.observe(completions)
        self._sink.post(completions)

"""Counts and durations of one model version, for ModelStatistics and the nv_inference_* metrics.

One rule holds for frames and Open Inference requests: each that was read for a serving version counts once, as a
success if its client got outputs, else as a failure with one reason. A request that comes to the former ends as a
completion and passes through the version's `CountingSink` on the way to the event loop; a request that ends earlier is
counted by `refuse`, called by the code that ends it. A request that its client gave up is CANCELED, executed or not. A
post of executed requests is one batch. A request that `counts_late` is part of that batch if it was
executed, and counts as a success or a failure when its front-end process tells which (`add_successes`,
`add_refusals`).

Thread: any; one lock per version, taken once per post.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from forebay_server.service.clock import Clock
from forebay_server.service.errors import Outcome
from forebay_server.service.pictures.device_picture import DecodedBy
from forebay_server.service.request import Completion, CompletionSink, Request, Timeline

REASON_BY_OUTCOME = {
    Outcome.EXPIRED: "REJECTED",
    Outcome.OVERLOADED: "REJECTED",
    Outcome.SUPERSEDED: "REJECTED",
    Outcome.NEEDS_KEYFRAME: "REJECTED",
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
    """A count, and the sum of durations."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int, count: int = 1) -> None:
        """Add `count` durations with the sum `ns`."""
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
        pictures: JPEG files by who decoded them, of a model whose devices do (`DecodedBy`).
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
    pictures: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class VersionReport:
    """One model version at one moment.

    Attributes:
        model: name.
        version: decimal number.
        counts: since it was loaded.
        pending: requests that are not executed yet, those that wait in a lane among them.
        load_ns: how long loading it took.
        tags: more labels, by name.
    """

    model: str
    version: str
    counts: Counts
    pending: int
    load_ns: int
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Successes:
    """Requests that were answered with outputs, and the sums of their durations.

    Attributes:
        count: how many.
        total_ns: received to the end.
        queue_ns: arrival to batch.
        h2d_ns: upload.
        execute_ns: execution.
        d2h_ns: download.
    """

    count: int = 0
    total_ns: int = 0
    queue_ns: int = 0
    h2d_ns: int = 0
    execute_ns: int = 0
    d2h_ns: int = 0

    def add(self, request: Request, now_ns: int) -> None:
        """Add a request that ends now."""
        timeline = request.timeline
        self.count += 1
        self.total_ns += now_ns - (timeline.received_ns or request.arrival_ns)
        self.queue_ns += max(0, timeline.formed_ns - request.arrival_ns)
        self.h2d_ns += timeline.h2d_ns
        self.execute_ns += timeline.execute_ns
        self.d2h_ns += timeline.d2h_ns


class Sums(NamedTuple):
    """The sums by which the load of a server is measured.

    Attributes:
        execute_ns: execution time of all batches.
        requests: that ended.
        failures: of these, those that the server failed on.
    """

    execute_ns: int
    requests: int
    failures: int


class VersionStatistics:
    """See the module."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counts = Counts()

    def observe(self, completions: Sequence[Completion]) -> None:
        """Count the completions of one post."""
        now_ns = self._clock.now_ns()
        rows = successes = success_ns = queue_ns = 0
        times: Timeline | None = None  # of the batch: its requests share the device's durations
        with self._lock:
            for completion in completions:
                request = completion.request
                timeline = request.timeline
                if completion.outputs is not None:
                    rows += request.size
                    times = timeline
                if request.counts_late:
                    continue
                total_ns = now_ns - (timeline.received_ns or request.arrival_ns)
                outcome = outcome_of(completion)
                if outcome is Outcome.OK:
                    successes += 1
                    success_ns += total_ns
                    queue_ns += max(0, timeline.formed_ns - request.arrival_ns)
                else:
                    self._count_failure(outcome, total_ns)
            if times is not None:
                self._count_batch(rows, times)
                self._count_successes(successes, success_ns, queue_ns, times)

    def reset(self) -> None:
        """Reset all counts: earlier requests were calibration."""
        with self._lock:
            self._counts = Counts()

    def refuse(self, outcome: Outcome, received_ns: int) -> None:
        """Count a request that was read at `received_ns` and ended before it came to the former."""
        total_ns = self._clock.now_ns() - received_ns
        with self._lock:
            self._count_failure(outcome, total_ns)

    def add_refusals(self, outcome: Outcome, count: int, total_ns: int) -> None:
        """Count requests that were refused in a front-end process; `total_ns` is the sum of their durations."""
        with self._lock:
            self._count_failure(outcome, total_ns, count)

    def add_successes(self, successes: Successes) -> None:
        """Count requests that ended well in a front-end process."""
        counts = self._counts
        with self._lock:
            _add(
                (counts.success, counts.queue, counts.compute_input, counts.compute_infer, counts.compute_output),
                (successes.total_ns, successes.queue_ns, successes.h2d_ns, successes.execute_ns, successes.d2h_ns),
                successes.count,
            )

    def count_picture(self, by: DecodedBy, count: int = 1) -> None:
        """Count JPEG files by who decodes them."""
        with self._lock:
            self._counts.pictures[by.value] += count

    def add_pictures(self, counts: Mapping[str, int]) -> None:
        """Count the JPEG files of a front-end process."""
        with self._lock:
            self._counts.pictures.update(counts)

    def pictures(self) -> Mapping[str, int]:
        """Return the counts of JPEG files by who decoded them."""
        with self._lock:
            return dict(self._counts.pictures)

    def add(self, counts: Callable[[Counts], None]) -> None:
        """Have `counts` add to all counts what was counted elsewhere."""
        with self._lock:
            counts(self._counts)

    def sums(self) -> Sums:
        """Return the sums of all counts."""
        with self._lock:
            counts = self._counts
            execute_ns = sum(batch.compute_infer.ns for batch in counts.batches.values())
            requests = counts.success.count + counts.fail.count
            return Sums(execute_ns, requests, counts.failures["BACKEND"] + counts.failures["OTHER"])

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
            failures, pictures = Counter(counts.failures), Counter(counts.pictures)
            return replace(counts, **durations, failures=failures, batches=batches, pictures=pictures)

    def _count_failure(self, outcome: Outcome, total_ns: int, count: int = 1) -> None:
        self._counts.fail.add(total_ns, count)
        self._counts.failures[REASON_BY_OUTCOME.get(outcome, "OTHER")] += count

    def _count_batch(self, rows: int, times: Timeline) -> None:
        counts = self._counts
        counts.rows += rows
        counts.executions += 1
        counts.last_inference_ms = time.time_ns() // 1_000_000  # a time for people, never subtracted
        batch = counts.batches.get(rows)
        if batch is None:
            batch = counts.batches[rows] = BatchCounts()
        _add(
            (batch.compute_input, batch.compute_infer, batch.compute_output),
            (times.h2d_ns, times.execute_ns, times.d2h_ns),
            1,
        )

    def _count_successes(self, successes: int, success_ns: int, queue_ns: int, times: Timeline) -> None:
        counts = self._counts
        _add(
            (counts.success, counts.queue, counts.compute_input, counts.compute_infer, counts.compute_output),
            (success_ns, queue_ns, successes * times.h2d_ns, successes * times.execute_ns, successes * times.d2h_ns),
            successes,
        )


def _add(durations: tuple[Duration, ...], nanoseconds: tuple[int, ...], count: int) -> None:
    """Add to each of `durations`: one call for all, since it is made for every batch."""
    for duration, ns in zip(durations, nanoseconds, strict=True):
        duration.count += count
        duration.ns += max(0, ns)


def outcome_of(completion: Completion) -> Outcome:
    """Return how a request ended: one whose client had left is cancelled, even if it was executed, or failed."""
    if completion.request.is_cancelled:
        return Outcome.CANCELLED
    return Outcome.OK if completion.error is None else completion.error.outcome


class Counting(Protocol):
    """Counts completions: a `VersionStatistics`, or its place in a front-end process. Thread: any."""

    def observe(self, completions: Sequence[Completion]) -> None:
        """Count the completions of one post."""
        ...


class CountingSink:
    """Implements service.request.CompletionSink: counts, then passes on."""

    def __init__(self, sink: CompletionSink, statistics: Counting) -> None:
        self._sink = sink
        self._statistics = statistics

    def post(self, completions: Sequence[Completion]) -> None:
        """Count and pass on completions. Thread: any. Blocks: no."""
        self._statistics.observe(completions)
        self._sink.post(completions)

"""Runs a batching workload with the real former thread and a real clock, on the simulated executor.

A probe beside it measures how late timers are on this machine: a run whose p99 lag exceeds 1 ms says nothing about the
former and is marked void.
"""

import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from bench.batching_workloads import Workload
from bench.real_lane import RealLane
from bench.virtual_time import NOT_YET_NS, cost_of
from service.batching.former import BatchFormer
from service.batching.settings import BatchingSettings
from service.clock import Clock, MonotonicClock
from service.request import Batch, Completion, FrameBuffer, Request, StreamKey

LARGEST_LAG_NS = 1_000_000
PROBE_PERIOD_NS = 5_000_000
PERMITS = 20_000
SWITCH_INTERVAL_S = 1e-4
"""As the service sets it."""
_FRAME = cast("FrameBuffer", SimpleNamespace(release=lambda: None))


@dataclass(slots=True)
class RealRun:
    """What came of a trace on a real clock. `finished_ns` counts from the start of the trace."""

    finished_ns: NDArray[np.int64]
    batch_rows: list[int] = field(default_factory=list)
    timer_lag_p99_ms: float = 0.0

    @property
    def is_void(self) -> bool:
        """Whether the machine was too busy for the numbers to mean anything."""
        return self.timer_lag_p99_ms * 1e6 > LARGEST_LAG_NS


class _Probe:
    """A thread that sleeps and notes how late it wakes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lags_ns: list[int] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="timer-probe", daemon=True)

    def __enter__(self) -> "_Probe":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_over.is_set():
            due_ns = self._clock.now_ns() + PROBE_PERIOD_NS
            self._clock.sleep_until(due_ns)
            self._lags_ns.append(self._clock.now_ns() - due_ns)

    @property
    def p99_ms(self) -> float:
        return float(np.percentile(self._lags_ns, 99) / 1e6) if self._lags_ns else 0.0


class _Sink:
    def post(self, completions: Sequence[Completion]) -> None:
        """Requests that were not executed keep their place in `finished_ns` at -1."""


def run_real(workload: Workload, settings: BatchingSettings, *, seed: int = 1) -> RealRun:
    """Run `workload` in real time. Blocks: as long as the trace is."""
    clock = MonotonicClock()
    run = RealRun(np.full(len(workload.arrivals_ns), NOT_YET_NS))
    errors: list[BaseException] = []
    start_ns = clock.now_ns()
    slowdown = workload.slowdown

    def finished(batch: Batch, now_ns: int) -> None:
        run.batch_rows.append(batch.rows)
        for request in batch.requests:
            run.finished_ns[request.id] = now_ns - start_ns

    lane = RealLane(
        workload.executor,
        clock,
        finished,
        seed=seed,
        slowdown=None if slowdown is None else lambda now_ns: slowdown(now_ns - start_ns),
    )
    former = BatchFormer("bench", [lane], cost_of(workload.executor), settings, clock, _Sink(), PERMITS, errors.append)
    lane.listener = former
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        lane.start()
        former.start()
        start_ns = clock.now_ns()
        with _Probe(clock) as probe:
            _send(workload, former, clock, start_ns)
        former.drain(clock.now_ns() + 5_000_000_000)
    finally:
        former.stop()
        former.join()
        lane.close()
        sys.setswitchinterval(interval_s)
    if errors:
        raise errors[0]
    run.timer_lag_p99_ms = probe.p99_ms
    return run


def _send(workload: Workload, former: BatchFormer, clock: Clock, start_ns: int) -> None:
    streams: dict[int, StreamKey] = {}
    trace = zip(workload.arrivals_ns.tolist(), workload.budgets_ns.tolist(), workload.streams.tolist(), strict=True)
    for position, (arrival_ns, budget_ns, stream) in enumerate(trace):
        due_ns = start_ns + arrival_ns
        clock.sleep_until(due_ns)
        key = streams.setdefault(stream, StreamKey(str(stream), workload.delivery))
        former.arrive(Request(position, key, 1, None, due_ns + budget_ns, due_ns, 1, _FRAME, lambda _: None))

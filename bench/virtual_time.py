"""Drives the real former core (policy, pending queue, cost model) through a trace in virtual time.

One loop over three sources of events in order of time: arrivals, events of lanes, the timer that the core asked for.
Nothing waits, so simulated time costs only what the decisions cost. The same workload, settings and seed give the same
batches, always.
"""

import heapq
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from forebay_server.bench.affine_table import affine_table
from forebay_server.bench.batching_workloads import Executor, Workload
from forebay_server.bench.disturbance import NONE, TIMERS, Disturbances
from forebay_server.bench.virtual_egress import VirtualEgress
from forebay_server.bench.virtual_lane import LaneEvent, VirtualLane
from forebay_server.service.batching.core import Decide, FormerCore, policy_of
from forebay_server.service.batching.cost_model import CostModel
from forebay_server.service.batching.decision import Decision
from forebay_server.service.batching.egress_time import EgressTime
from forebay_server.service.batching.settings import BatchingSettings
from forebay_server.service.errors import Outcome
from forebay_server.service.request import Completion, FrameBuffer, Request, StreamKey

NOT_YET_NS = -1
_FRAME = cast("FrameBuffer", SimpleNamespace(release=lambda: None))


def _nobody(_: Completion) -> None:
    """Completions are read from the core, not from requests."""


@dataclass(slots=True)
class Run:
    """The outcome of a trace.

    Attributes:
        finished_ns: when the result of each request was readable, -1 if it was not executed; shape (n,), int64.
        endings: how requests ended that were not executed.
        batches: `(formed_ns, ids)` of each batch, in order; ids are positions in the trace.
        batch_rows: rows of each batch.
        cpu_s: process CPU time of the whole run; `decide_cpu_s` of the decisions alone, if they were measured.
        peak_pending: most requests pending at once.
    """

    workload: Workload
    finished_ns: NDArray[np.int64]
    endings: dict[int, Outcome] = field(default_factory=dict)
    batches: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)
    batch_rows: list[int] = field(default_factory=list)
    simulated_ns: int = 0
    busy_ns: int = 0
    cpu_s: float = 0.0
    decide_cpu_s: float = 0.0
    peak_pending: int = 0
    steps: int = 0
    decisions: int = 0


def cost_of(executor: Executor, sizes: Sequence[int] | None = None) -> CostModel:
    """Return the calibrated cost model of an executor."""
    sizes = range(1, executor.max_batch_size + 1) if sizes is None else sizes
    costs = executor.costs
    table = affine_table(tuple(sizes), costs.alpha_ns, costs.beta_ns, h2d_ns=costs.h2d_ns, d2h_ns=costs.d2h_ns)
    return CostModel(sizes, table)


class VirtualTime:
    """One run: see the module's docstring.

    Args:
        workload: the arrivals.
        settings: knobs of the former.
        seed: of the executor's scatter.
        lanes: how many executors there are.
        cost: the cost model; None makes the calibrated one of the workload's executor.
        timer_lag_ns: how late each timer is; a function is asked each time one is set.
        egress_ns: how long one result takes on its way out, one after the other; a function is asked each time.
            `finished_ns` counts from its end.
        is_timing_decisions: measure the CPU time of each decision (which costs time itself).
        disturbances: of the lanes, by time.
    """

    def __init__(
        self,
        workload: Workload,
        settings: BatchingSettings,
        *,
        seed: int = 1,
        lanes: int = 1,
        cost: CostModel | None = None,
        timer_lag_ns: int | Callable[[], int] = 0,
        egress_ns: int | Callable[[], int] = 0,
        is_timing_decisions: bool = False,
        disturbances: Disturbances = NONE,
    ) -> None:
        self.now_ns = 0
        self.lanes = [
            VirtualLane(
                index,
                workload.executor.costs,
                lambda: self.now_ns,
                seed=seed + index,
                slowdown=workload.slowdown,
                disturbances=disturbances,
            )
            for index in range(lanes)
        ]
        self._decide_cpu_ns = 0
        decide = self._timed(policy_of(settings)) if is_timing_decisions else None
        egress_time = EgressTime()
        self.delivery = VirtualEgress(egress_ns, egress_time, disturbances)
        self.core = FormerCore(
            self.lanes, cost or cost_of(workload.executor), settings, decide=decide, egress_time=egress_time
        )
        self.run_so_far = Run(workload, np.full(len(workload.arrivals_ns), NOT_YET_NS))
        self._events: list[LaneEvent] = []
        self._timer_lag_ns = timer_lag_ns
        self._disturbances = disturbances
        self._streams: dict[int, StreamKey] = {}

    def _timed(self, decide: Decide) -> Decide:
        def timed(*args: Any, **options: Any) -> Decision:  # noqa: ANN401 - of Decide
            started_ns = time.process_time_ns()
            decision = decide(*args, **options)
            self._decide_cpu_ns += time.process_time_ns() - started_ns
            return decision

        return timed

    def run(self) -> Run:
        """Run the trace to its end and until everything has ended."""
        workload, run, events, core = self.run_so_far.workload, self.run_so_far, self._events, self.core
        arrivals = workload.arrivals_ns.tolist()
        budgets, streams = workload.budgets_ns.tolist(), workload.streams.tolist()
        position, count, lag_ns, wrong = 0, len(arrivals), self._timer_lag_ns, self._disturbances
        wake_ns: int | None = None
        started_s = time.process_time()
        while True:
            due = [arrivals[position]] if position < count else []
            if events:
                due.append(events[0].at_ns)
            if wake_ns is not None:
                due.append(wake_ns)
            if not due:
                break
            now_ns = self.now_ns = wrong.seen_ns(max(self.now_ns, min(due)))
            while events and events[0].at_ns <= now_ns:
                self._apply(heapq.heappop(events))
            while position < count and arrivals[position] <= now_ns:
                core.arrive(self._request(position, now_ns, budgets[position], streams[position]), now_ns)
                position += 1
            self.delivery.tell(now_ns)
            run.peak_pending = max(run.peak_pending, len(core.pending))
            wake_ns = core.step(now_ns)
            if wake_ns is not None:
                late_ns = lag_ns if isinstance(lag_ns, int) else lag_ns()
                wake_ns += int(late_ns * wrong.factor(TIMERS, wake_ns)) if late_ns else 0
            self._collect()
        run.cpu_s = time.process_time() - started_s
        run.simulated_ns = self.now_ns
        run.busy_ns = sum(lane.busy_ns for lane in self.lanes)
        run.decide_cpu_s = self._decide_cpu_ns / 1e9
        run.steps, run.decisions = core.counters.steps, core.counters.decisions
        return run

    def _request(self, position: int, now_ns: int, budget_ns: int, stream: int) -> Request:
        key = self._streams.get(stream)
        if key is None:
            key = self._streams[stream] = StreamKey(str(stream), self.run_so_far.workload.delivery)
        return Request(position, key, 1, None, now_ns + budget_ns, now_ns, 1, _FRAME, _nobody)

    def _apply(self, event: LaneEvent) -> None:
        batch = event.batch
        if not event.is_slot_freed:
            self.core.compute_ended(batch, event.at_ns, event.h2d_ns, event.execute_ns)
            return
        batch.requests[0].timeline.readable_ns = event.at_ns
        for request in batch.requests:
            self.run_so_far.finished_ns[request.id] = self.delivery.deliver(event.at_ns)
        self.lanes[batch.lane_index].unreserve(batch.slot_index)
        self.core.slot_freed(batch.lane_index, batch.slot_index, event.d2h_ns)

    def _collect(self) -> None:
        run = self.run_so_far
        for lane in self.lanes:
            for event in lane.events:
                heapq.heappush(self._events, event)
                if event.is_slot_freed:
                    run.batches.append((event.batch.formed_ns, tuple(r.id for r in event.batch.requests)))
                    run.batch_rows.append(event.batch.rows)
            lane.events.clear()
        if self.core.ended:
            for completion in self.core.take_ended():
                error: Any = completion.error
                run.endings[completion.request.id] = error.outcome


def simulate(workload: Workload, settings: BatchingSettings, **options: Any) -> Run:  # noqa: ANN401 - of VirtualTime
    """Run `workload` under `settings`; options as of `VirtualTime`."""
    return VirtualTime(workload, settings, **options).run()

"""CPU time of one decision of the policy: over a trace, and by the number of pending requests."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import cast

from forebay_server.bench.batching_workloads import GPU, MS, poisson
from forebay_server.bench.virtual_lane import VirtualLane
from forebay_server.bench.virtual_time import cost_of, simulate
from forebay_server.service.batching.core import FormerCore
from forebay_server.service.batching.policy import decide
from forebay_server.service.batching.settings import BatchingSettings
from forebay_server.service.request import Delivery, FrameBuffer, Request, StreamKey

FEW, MANY = 50, 200
REPEATS = 400
ROUNDS = 7
BUDGET_NS = 200 * MS
OVERLOAD = 1.5
_FRAME = cast("FrameBuffer", SimpleNamespace(release=lambda: None))


@dataclass(frozen=True, slots=True)
class DecideCost:
    """CPU microseconds a call; `growth` is many over few pending requests."""

    mean_us: float
    calls: int
    few_pending_us: float
    many_pending_us: float
    growth: float


def measure_decide_cost(seconds: float = 10.0) -> DecideCost:
    """Measure on the poisson 1.2 trace, then on queues of 50 and 200 requests in a sustained overload."""
    settings = BatchingSettings(GPU.max_batch_size)
    run = simulate(poisson(1.2, seconds, 1), settings, is_timing_decisions=True)
    few_us, many_us = _forming_us(FEW), _forming_us(MANY)
    return DecideCost(
        mean_us=run.decide_cpu_s / run.decisions * 1e6,
        calls=run.decisions,
        few_pending_us=few_us,
        many_pending_us=many_us,
        growth=many_us / few_us,
    )


def _forming_us(count: int) -> float:
    """Return CPU microseconds of a decision that forms a batch, the dearest kind: least served first, of `count`."""
    decision = _decision_on(count)
    decision()
    rounds = []
    for _ in range(ROUNDS):
        started_ns = time.process_time_ns()
        for _ in range(REPEATS):
            decision()
        rounds.append((time.process_time_ns() - started_ns) / REPEATS / 1e3)
    return min(rounds)


def _decision_on(count: int) -> Callable[[], object]:
    settings = BatchingSettings(GPU.max_batch_size)
    lane = VirtualLane(0, GPU.costs, lambda: 0)
    core = FormerCore([lane], cost_of(GPU), settings)
    gap_ns = int(1.0 / (OVERLOAD * GPU.capacity_per_ns))
    streams = [StreamKey(str(index), Delivery.EVERY) for index in range(60)]
    now_ns, rows = 0, 0
    while rows < 20_000:  # long enough for the sustained rate to settle
        now_ns += gap_ns
        rows += 1
        core.arrive(_request(rows, streams[rows % len(streams)], now_ns), now_ns)
        if len(core.pending) > count:
            core.pending.discard(rows - count)
    core.lanes.states[0].reserve()
    return lambda: decide(now_ns, core.pending, core.lanes, core.cost, settings)


def _request(request_id: int, stream: StreamKey, now_ns: int) -> Request:
    return Request(request_id, stream, 1, None, now_ns + BUDGET_NS, now_ns, 1, _FRAME, lambda _: None)

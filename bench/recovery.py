"""Recovery time of the batch former after a disturbance, in virtual time.

Cameras offer a share of the capacity of an engine with t(b) = 15 + b ms, at most 32 rows, budget 100 ms; a result takes
0.06 ms on its way out, a timer is 0.15 ms late. One of these durations is multiplied by a factor for a while. Counted
from the end of the last batch (its delivery included) that was formed meanwhile, the rate of results in time has to be
back soon at its earlier value.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from forebay_server.bench.batching_workloads import MS, SECOND_NS, Executor, Workload
from forebay_server.bench.disturbance import DEMAND, EXECUTION, PAUSE, QUANTITIES, Disturbance, Disturbances
from forebay_server.bench.virtual_lane import StageCosts
from forebay_server.bench.virtual_time import NOT_YET_NS, Run, VirtualTime
from forebay_server.service.batching.settings import BatchingSettings
from forebay_server.service.request import Delivery

ENGINE = Executor(StageCosts(15 * MS, MS, (200_000, 30_000), (100_000, 10_000)), 32)
BUDGET_NS = 100 * MS
RESULT_NS = 60_000
TIMER_LAG_NS = 150_000
START_NS = 3 * SECOND_NS
BEFORE_NS = 2 * SECOND_NS
"""Time before the disturbance whose rate is the reference."""
AFTER_NS = 2 * SECOND_NS
"""And how long after it should be over."""
DEPTH = 3
SHARE = 0.95
SHORT_NS = 100 * MS
SHORT_LIMIT_NS = SECOND_NS
LIMIT_NS = 2 * SECOND_NS

FACTORS = (0.1, 1 / 3, 3.0, 10.0, 100.0)
DURATIONS_S = (0.1, 0.5, 1.0, 2.0)
LOADS = (0.3, 0.7, 0.9, 1.2, 2.0, 3.0)
STREAMS = (1, 8, 48)


@dataclass(frozen=True, slots=True)
class Cell:
    """One disturbance at one load, and its effect.

    Attributes:
        before_per_s: results in time before.
        after_per_s: the same once it should be over.
        last_s: end of the last batch that was formed meanwhile, counted from the start of the disturbance.
    """

    quantity: str
    factor: float
    seconds: float
    load: float
    delivery: str
    streams: int
    before_per_s: float
    after_per_s: float
    last_s: float

    @property
    def is_recovered(self) -> bool:
        """Whether the rate has recovered."""
        return self.after_per_s >= SHARE * self.before_per_s


def cameras(
    load: float, streams: int, delivery: Delivery, duration_ns: int, disturbances: Disturbances, *, seed: int = 1
) -> Workload:
    """Return the trace: evenly spaced frames with random phases; DEMAND makes the gaps shorter by its factor."""
    rate = load * ENGINE.capacity_per_ns / streams
    generator = np.random.default_rng(seed)
    grid_ns = np.arange(0, duration_ns + MS, MS)
    factors = np.ones(len(grid_ns))
    for part in disturbances.parts:
        if part.quantity == DEMAND:
            factors[(grid_ns >= part.start_ns) & (grid_ns < part.end_ns)] *= part.factor
    offered = np.concatenate([[0.0], np.cumsum(factors)[:-1]]) * MS * rate  # frames of a stream by then
    numbers = np.arange(int(offered[-1]))
    instants = np.concatenate(
        [np.interp(numbers + phase, offered, grid_ns) for phase in generator.uniform(0, 1, streams)]
    )
    order = np.argsort(instants, kind="stable")
    arrivals = instants[order].astype(np.int64)
    of_streams = np.repeat(np.arange(streams), len(numbers))[order]
    budgets = np.full(len(arrivals), BUDGET_NS)
    return Workload("recovery", load, ENGINE, arrivals, budgets, of_streams, duration_ns, delivery)


def disturbed(
    load: float, streams: int, delivery: Delivery, parts: Sequence[Disturbance], *, seed: int = 1
) -> tuple[Run, int]:
    """Return the run, and the end of the last batch that was formed while something was wrong."""
    wrong = Disturbances(parts)
    slowest = max((part.factor for part in parts if part.quantity == EXECUTION), default=1.0)
    rows = ENGINE.max_batch_size
    longest_ns = DEPTH * max(1.0, slowest) * (ENGINE.costs.alpha_ns + ENGINE.costs.beta_ns * rows)
    end_ns = int(wrong.end_ns + longest_ns + LIMIT_NS + AFTER_NS + SECOND_NS)
    workload = cameras(load, streams, delivery, end_ns, wrong, seed=seed)
    run = VirtualTime(
        workload,
        BatchingSettings(rows),
        seed=seed,
        egress_ns=RESULT_NS,
        timer_lag_ns=TIMER_LAG_NS,
        disturbances=wrong,
    ).run()
    last_ns = wrong.end_ns
    for formed_ns, ids in run.batches:
        if START_NS <= formed_ns < wrong.end_ns:
            last_ns = max(last_ns, int(run.finished_ns[list(ids)].max()))
    return run, last_ns


def in_time_per_s(run: Run, start_ns: int, end_ns: int) -> float:
    """Return the rate of results in time, of frames that arrived between two instants."""
    arrivals = run.workload.arrivals_ns
    is_counted = (arrivals >= start_ns) & (arrivals < end_ns) & (run.finished_ns != NOT_YET_NS)
    is_in_time = run.finished_ns <= arrivals + run.workload.budgets_ns
    return float((is_counted & is_in_time).sum()) * SECOND_NS / (end_ns - start_ns)


def recover(load: float, streams: int, delivery: Delivery, parts: Sequence[Disturbance], *, seed: int = 1) -> Cell:
    """Run one cell; `parts` begin at START_NS or later."""
    run, last_ns = disturbed(load, streams, delivery, parts, seed=seed)
    seconds = (max(part.end_ns for part in parts) - START_NS) / SECOND_NS
    over_ns = last_ns + (SHORT_LIMIT_NS if seconds <= SHORT_NS / SECOND_NS else LIMIT_NS)
    name = "+".join(part.quantity for part in parts)
    return Cell(
        name,
        parts[0].factor,
        seconds,
        load,
        delivery.name,
        streams,
        in_time_per_s(run, START_NS - BEFORE_NS, START_NS - BUDGET_NS),
        in_time_per_s(run, over_ns, over_ns + AFTER_NS),
        (last_ns - START_NS) / SECOND_NS,
    )


def grid(
    *,
    quantities: Sequence[str] = (*QUANTITIES, PAUSE),
    factors: Sequence[float] = FACTORS,
    durations_s: Sequence[float] = DURATIONS_S,
    loads: Sequence[float] = LOADS,
    deliveries: Sequence[Delivery] = (Delivery.EVERY, Delivery.LATEST),
    streams: Sequence[int] = STREAMS,
) -> Iterator[Cell]:
    """Run every combination; a pause has one factor."""
    for quantity in quantities:
        for factor in factors if quantity != PAUSE else (1.0,):
            for seconds in durations_s:
                part = Disturbance(quantity, factor, START_NS, START_NS + int(seconds * SECOND_NS))
                for load in loads:
                    for delivery in deliveries:
                        for count in streams:
                            yield recover(load, count, delivery, [part])

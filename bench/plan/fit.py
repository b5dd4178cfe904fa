"""How many cameras fit on a machine: the simulation at some numbers of cameras, and the largest that fits.

Theory of operation
    The ceiling is where the busiest part would have work all the time; it follows from the costs without a simulation.
    The candidates are numbers of cameras at fixed shares of the ceiling, or every number where there are few. Bisection
    finds the largest that fits: with a looser target it never turns to fewer cameras than with a stricter one, so a
    looser target never fits fewer. Some smaller candidates are simulated for the curve alone. By chance a point can be
    better than one below it; a plan may not rely on that, so the curve that is reported never falls. A plan keeps a
    reserve: see `MOST_SHARE`.

    A number of cameras fits as `forebay load search` judges it: the upper end of p99's interval is within the target,
    at most a given share of the frames is dropped, and cameras on the same machine send in time.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from forebay_server.bench.plan.costs import PlanCosts
from forebay_server.bench.plan.virtual_server import MOST_WORKERS, Arrivals, Outcome, VirtualServer, execution_ns
from forebay_server.loadtest.arrivals import plan as plan_of
from forebay_server.loadtest.quantiles import Interval, block_bootstrap, min_samples, order_statistics, quantile, wider
from forebay_server.loadtest.scenario import Scenario
from forebay_server.loadtest.verdict import generator_fault
from forebay_server.service.batching.settings import BatchingSettings
from forebay_server.service.request import Delivery

MOST_SHARE = 0.9
"""Of the ceiling, to which a plan goes. The simulated p99 of a small model is a quarter of the target at 0.94 of the
ceiling and misses it at 0.99, so that without a reserve the plan would be the ceiling itself. Costs are not so exact:
plans from two measurements on one quiet machine differed by 1 to 20 %, and the kernel and short-lived programs take a
core at times."""
SHARES = (0.25, 0.5, 0.6, 0.7, 0.75, 0.8, 0.825, 0.85, 0.875, MOST_SHARE)
"""Of the ceiling. Finest where queues begin to grow."""
CURVE_SHARES = (0.25, 0.5, 0.75)
"""Simulated also where they are far from what fits, so that the curve shows how the latency grows."""
LEAST_SECONDS = 20.0
"""As long as a trial of `forebay load search`: the interval of p99 is as wide as there."""
FEW_CAMERAS = 20
"""Up to here every number is a candidate: shares would leave out some of the few."""
MOST_FRAMES = 15_000
"""Of one simulated run: p99 is the 150th latency from above then, and a run takes a second or two."""


@dataclass(frozen=True, slots=True)
class Cameras:
    """The traffic of every camera.

    Attributes:
        fps: frames per second.
        budget_ms: latency budget of a frame.
        delivery: of the streams.
    """

    fps: float
    budget_ms: float
    delivery: Delivery


@dataclass(frozen=True, slots=True)
class Machine:
    """One kind of machine.

    Attributes:
        cores: that the server may use.
        front_ends: event loops: 1, or the number of front-end processes.
        taken: cores that other programs use.
        has_cameras: whether the cameras' programs run on the same machine, as in a test on one machine.
    """

    cores: int
    front_ends: int = 1
    taken: float = 0.0
    has_cameras: bool = False

    @property
    def workers(self) -> int:
        """Workers of all processes."""
        return min(MOST_WORKERS, self.cores) * self.front_ends


@dataclass(frozen=True, slots=True)
class Target:
    """The conditions for a number of cameras to fit: `p99_ms`, its interval included, and `dropped_share`, 0..1."""

    p99_ms: float
    dropped_share: float = 0.01


@dataclass(frozen=True, slots=True)
class Point:
    """A number of cameras and the fate of their frames.

    Attributes:
        cameras: on the machine.
        p50_ms: from sending to the answer.
        p99_ms: from sending to the answer.
        p99_upper_ms: upper end of its 95 % interval; infinite with too few results.
        is_sent_in_time: whether the cameras send in time, by the rule of `forebay load`; true for cameras elsewhere.
        dropped_share: of the offered frames, 0..1.
        mean_batch: rows.
        busiest: the part with the most work, and its share of the time.
        busy: of that part.
        cores_busy: cores in use.
        share: of the ceiling.
    """

    cameras: int
    p50_ms: float
    p99_ms: float
    p99_upper_ms: float
    is_sent_in_time: bool
    dropped_share: float
    mean_batch: float
    busiest: str
    busy: float
    cores_busy: float
    share: float

    def passes(self, target: Target) -> bool:
        """Return whether so many cameras fit and leave the reserve."""
        within = self.p99_upper_ms <= target.p99_ms and self.dropped_share <= target.dropped_share
        return within and self.is_sent_in_time and self.share <= MOST_SHARE


@dataclass(frozen=True, slots=True)
class Fit:
    """The answer for one machine: `points` in order of cameras, `fits` of which the last that passes has."""

    points: tuple[Point, ...]
    fits: int
    ceiling: float

    @property
    def at(self) -> Point | None:
        """The point with as many cameras as fit; None if none do."""
        return next((point for point in self.points if point.cameras == self.fits), None)

    @property
    def limit(self) -> Point:
        """The point that shows what keeps more cameras from fitting: the first that does not pass, or the last."""
        return next((point for point in self.points if point.cameras > self.fits), self.points[-1])


def ceiling_per_s(costs: PlanCosts, machine: Machine) -> float:
    """Return frames per second at which the busiest part has work all the time."""
    frame = costs.frame
    best_ns = min(execution_ns(costs, size) / size for size in costs.executed_sizes)
    used_ns: float = frame.transport_ns + frame.loop_ns + frame.decode_ns + frame.result_ns + frame.stage_ns
    used_ns += best_ns * costs.strands + (frame.camera_ns if machine.has_cameras else 0)
    parts = (
        (frame.transport_ns, machine.front_ends),
        (frame.loop_ns, machine.front_ends),
        (frame.decode_ns + frame.result_ns, machine.workers),
        (frame.stage_ns, 1),
        (best_ns, costs.instances),
        (frame.camera_ns if machine.has_cameras else 0, 1),
        (used_ns, max(0.05, machine.cores - machine.taken)),
    )
    return min(width * 1e9 / ns for ns, width in parts if ns)


def candidates(ceiling: float) -> list[int]:
    """Return the numbers of cameras among which the largest that fits is looked for, rising."""
    most = math.floor(ceiling * MOST_SHARE)
    return list(range(1, most + 1)) if 1 <= most <= FEW_CAMERAS else counts(ceiling)


def counts(ceiling: float, shares: Sequence[float] = SHARES) -> list[int]:
    """Return the numbers of cameras at these shares of the ceiling, rising, each once."""
    return sorted({max(1, math.floor(ceiling * share)) for share in shares})


def simulate(
    costs: PlanCosts, cameras: Cameras, machine: Machine, count: int, seed: int = 1, most_frames: int | None = None
) -> Outcome:
    """Return what becomes of the frames of `count` cameras in a run as long as a trial of `forebay load search`.

    The costs' slowdown is in all its times. A run has MOST_FRAMES frames at most, or fewer if `most_frames` says so.
    """
    rate = count * cameras.fps
    seconds = max(LEAST_SECONDS, 1.5 * min_samples(0.99) / rate)
    seconds = max(min(seconds, min(MOST_FRAMES, most_frames or MOST_FRAMES) / rate), 2.0 / cameras.fps)
    plans = plan_of(Scenario(duration_s=seconds, streams=count, fps=cameras.fps, seed=seed))
    instants = np.concatenate([each.intended_ns for each in plans])
    owners = np.repeat(np.arange(count), [len(each.intended_ns) for each in plans])
    order = np.argsort(instants, kind="stable")
    server = VirtualServer(
        costs.slowed(),
        machine.cores - machine.taken,
        BatchingSettings(costs.executed_sizes[-1]),
        cameras.delivery,
        round(cameras.budget_ms * 1e6),
        workers=machine.workers,
        front_ends=machine.front_ends,
        has_cameras=machine.has_cameras,
        seed=seed,
    )
    return server.run(Arrivals(instants[order], owners[order]))


def point_of(count: int, outcome: Outcome, ceiling: float) -> Point:
    """Return the numbers of a run. The ceiling is in cameras."""
    latencies_ms = np.array(outcome.latencies_ns, np.float64) / 1e6
    interval = _interval(outcome, latencies_ms)
    p50_ms = quantile(latencies_ms, 0.5)
    lag_ms = quantile(np.array(outcome.lags_ns, np.float64) / 1e6, 0.99) if outcome.lags_ns else 0.0
    busiest = max(outcome.busy, key=lambda name: outcome.busy[name])
    return Point(
        cameras=count,
        p50_ms=p50_ms,
        p99_ms=quantile(latencies_ms, 0.99),
        p99_upper_ms=interval.high if interval is not None else math.inf,
        is_sent_in_time=not generator_fault(lag_ms, p50_ms, is_open_loop=True),
        dropped_share=outcome.dropped_share,
        mean_batch=outcome.mean_batch,
        busiest=busiest,
        busy=outcome.busy[busiest],
        cores_busy=outcome.cores_busy,
        share=count / ceiling,
    )


def _interval(outcome: Outcome, latencies_ms: NDArray[np.float64]) -> Interval | None:
    """Return p99's interval as a report of `forebay load` has it; of runs too short for that, by their order alone."""
    by_order = order_statistics(latencies_ms, 0.99)
    by_time = block_bootstrap(latencies_ms, np.array(outcome.due_ns, np.float64) / 1e9, 0.99)
    return wider(by_order, by_time) or by_order


def rising(points: list[Point]) -> tuple[Point, ...]:
    """Return the points with latencies and drops that never fall from one to the next."""
    made: list[Point] = []
    for point in points:
        last = made[-1] if made else point
        made.append(
            replace(
                point,
                p50_ms=_largest(last.p50_ms, point.p50_ms),
                p99_ms=_largest(last.p99_ms, point.p99_ms),
                p99_upper_ms=max(last.p99_upper_ms, point.p99_upper_ms),
                is_sent_in_time=last.is_sent_in_time and point.is_sent_in_time,
                dropped_share=max(last.dropped_share, point.dropped_share),
            )
        )
    return tuple(made)


def fit(costs: PlanCosts, cameras: Cameras, machine: Machine, target: Target, seed: int = 1) -> Fit:
    """Find the largest number of cameras that fits, by bisection, and simulate a few smaller ones for the curve."""
    ceiling = ceiling_per_s(costs.slowed(), machine) / cameras.fps
    among = candidates(ceiling)
    points: dict[int, Point] = {}

    def point_at(count: int) -> Point:
        if count not in points:
            points[count] = point_of(count, simulate(costs, cameras, machine, count, seed), ceiling)
        return points[count]

    first_failing = bisect_left(among, True, key=lambda count: not point_at(count).passes(target))  # noqa: FBT003
    largest = among[max(0, first_failing - 1)]
    for count in counts(ceiling, CURVE_SHARES):
        if count < largest:
            point_at(count)
    point_at(max(among[-1] + 1, math.floor(ceiling)))  # for the curve, and to name the limit
    curve = rising([points[count] for count in sorted(points)])
    fits = max((point.cameras for point in curve if point.passes(target)), default=0)
    return Fit(curve, fits, ceiling)


def _largest(one: float, other: float) -> float:
    return other if math.isnan(one) else one if math.isnan(other) else max(one, other)

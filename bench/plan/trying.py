"""Real runs on the machine that measures: at the number of cameras that the simulation promises for it, and around it.

Cameras send before the server whose costs were just measured, as in a trial of `forebay load search`, but shorter: a
run is as long as p99's interval needs, within a quarter and a half of the time for all runs. A run passes when p99 (p95
of fewer than a hundred answers) is within the target, no more frames than allowed are dropped, and the cameras sent in
time. A run beside which other programs used a tenth of the cores counts neither way, nor does a first run that is wrong
only because its cameras sent late; its number is tried again while there is time.
"""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import fmean

from forebay_server.bench.plan.costs import PlanCosts
from forebay_server.bench.plan.fit import Cameras, Machine, Target, candidates, ceiling_per_s, point_of, simulate
from forebay_server.bench.plan.offering import Offered, offer
from forebay_server.bench.plan.real_runs import RealRun, RealRuns, ends, next_count, slowdown_of
from forebay_server.bench.server_process import RunningServer
from forebay_server.loadtest.errors import CannotConnectError, LoadTestError
from forebay_server.loadtest.options import LoadOptions
from forebay_server.loadtest.quantiles import min_samples
from forebay_server.loadtest.target import Delivery
from forebay_server.loadtest.verdict import Verdict
from forebay_server.service.cores import usable_cores

SHORTEST, LONGEST = 0.25, 0.5
"""Of the time for all runs, that one takes."""
SIMULATED_FRAMES = 3000
"""Of a simulated run that is compared with a real one: it has as many at most, and takes less than a second."""
MOST_OTHERS = 0.1
"""Of the cores, used by other programs, from which on a run says more about these than about the server."""


NONE_COUNTS = "other programs used the cores, or the cameras sent late; measure again on a quiet machine"


@dataclass(frozen=True, slots=True)
class Asked:
    """The traffic and the target that a plan is asked for."""

    cameras: Cameras
    target: Target


def corrected(
    costs: PlanCosts,
    asked: Asked,
    try_cameras: Callable[[int, float], RealRun],
    front_ends: int,
    seconds: float,
) -> PlanCosts:
    """Return the costs with the slowdown that real runs show, and with these runs. Blocks: for about `seconds`.

    Args:
        costs: just measured on this machine.
        asked: the traffic of the runs.
        try_cameras: does a run of so many cameras for so many seconds; raises LoadTestError if that cannot be.
        front_ends: event loops of the server, at least 1.
        seconds: for all runs.
    """
    before = Machine(costs.cores, front_ends, min(costs.others_cores, costs.cores / 2), has_cameras=True)
    promised = _promised(costs, asked, before)
    runs, doubt = _runs(asked, promised, try_cameras, seconds)
    real = RealRuns(
        fps=asked.cameras.fps,
        budget_ms=asked.cameras.budget_ms,
        delivery=asked.cameras.delivery.value,
        p99_ms=asked.target.p99_ms,
        dropped_share=asked.target.dropped_share,
        promised=promised,
        runs=runs,
        doubt=doubt or (NONE_COUNTS if runs and ends(runs) == (0, None) else ""),
    )
    if not runs or real.doubt:
        return replace(costs, real=real)
    during = replace(before, taken=fmean(run.others_cores for run in runs if not run.is_disturbed))
    slowdown = slowdown_of(
        runs, lambda count, slowdown: _carries(replace(costs, slowdown=slowdown), asked, during, count)
    )
    return replace(costs, slowdown=slowdown, real=real)


def _promised(costs: PlanCosts, asked: Asked, here: Machine) -> int:
    """Return the largest number of cameras that fits in the simulation; 0 if none does."""
    among = candidates(ceiling_per_s(costs, here) / asked.cameras.fps)
    fitting = bisect_left(among, True, key=lambda count: not _carries(costs, asked, here, count))  # noqa: FBT003
    return among[fitting - 1] if fitting else 0


def _carries(costs: PlanCosts, asked: Asked, here: Machine, count: int) -> bool:
    """Return whether so many cameras fit in the simulation."""
    ceiling = ceiling_per_s(costs.slowed(), here) / asked.cameras.fps
    outcome = simulate(costs, asked.cameras, here, count, most_frames=SIMULATED_FRAMES)
    return point_of(count, outcome, ceiling).passes(asked.target)


def _runs(
    asked: Asked, promised: int, try_cameras: Callable[[int, float], RealRun], seconds: float
) -> tuple[tuple[RealRun, ...], str]:
    """Return the runs, and why there are no more of them if something went wrong."""
    runs: list[RealRun] = []
    left_s = seconds
    while (count := next_count(promised, runs)) is not None:
        needed_s = min_samples(0.99) / (count * asked.cameras.fps)
        run_s = min(LONGEST * seconds, max(SHORTEST * seconds, needed_s))
        if run_s > left_s + 1e-9:
            break
        left_s -= run_s
        try:
            runs.append(try_cameras(count, run_s))
        except LoadTestError as error:
            return tuple(runs), f"a run of {count} cameras could not be made: {error}"
    return tuple(runs), ""


def trier(
    server: RunningServer, load: LoadOptions, asked: Asked, say: Callable[[str], None]
) -> Callable[[int, float], RealRun]:
    """Return a function that does the runs before a server.

    Args:
        server: it is ready and has nothing else to do.
        load: the frames and the model.
        asked: the traffic and the target.
        say: takes a line before each run.
    """

    def try_cameras(count: int, seconds: float) -> RealRun:
        say(f"trying {count} {'camera' if count == 1 else 'cameras'} for {seconds:.0f} s")
        options = replace(
            load,
            address=server.address,
            cameras=count,
            fps=asked.cameras.fps,
            budget=f"{asked.cameras.budget_ms}ms",
            delivery=Delivery(asked.cameras.delivery.value),
            duration=f"{seconds:.2f}s",
            live=False,
        )
        return real_run_of(offer(server, options), count, asked.target, usable_cores())

    return try_cameras


def real_run_of(offered: Offered, count: int, target: Target, cores: int) -> RealRun:
    """Return the result of a run on so many cores. Raises CannotConnectError if the server went away."""
    document = offered.document
    reason = next((reason.partition(";")[0] for reason in document["reasons"]), "")  # the worst one is the first
    if document["verdict"] == Verdict.NO_SERVER:
        raise CannotConnectError(reason)
    is_valid = document["verdict"] != Verdict.INVALID
    p99_ms = document["p99_ms"]
    latency_ms = p99_ms if p99_ms is not None else document["p95_ms"]  # of fewer than a hundred answers there is no p99
    dropped_share = document["dropped_share"] if document["dropped_share"] is not None else 1.0
    within = latency_ms is not None and latency_ms <= target.p99_ms and dropped_share <= target.dropped_share
    return RealRun(
        cameras=count,
        passes=within and is_valid,
        frames=document["offered"],
        dropped_share=dropped_share,
        p99_ms=p99_ms,
        seconds=document["duration_s"],
        others_cores=offered.others_cores,
        remark=reason if within and not is_valid else "",
        is_disturbed=offered.others_cores >= MOST_OTHERS * cores,
    )

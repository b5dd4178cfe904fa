"""`python -m forebay_server.bench.plan.check`: plans against a real server on this machine, which also has the cameras.

Every round measures the costs anew, plans, and then offers nine tenths, all and eleven tenths of the planned cameras
to a real server. A plan is right within 10 % if nine tenths pass and eleven tenths do not. On a machine that other
programs use, rounds differ: each line has the load average before it, and each trial the cores that others had. With
--json a trial also has the CPU time of a frame by kind of thread, to compare with the plan's, and where the time goes.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path

from forebay_server.bench.plan.fit import Cameras, Machine, Point, Target
from forebay_server.bench.plan.fleet import limit_of, make_plan
from forebay_server.bench.plan.measuring import Wanted, camera_s, cpu_ns, measure_costs
from forebay_server.bench.plan.thread_times import machine_busy_s, own_busy_s, thread_times
from forebay_server.bench.server_process import RunningServer, running_server
from forebay_server.loadtest.capacity import trial_of
from forebay_server.loadtest.measure import measure
from forebay_server.loadtest.options import LoadOptions
from forebay_server.loadtest.quantiles import min_samples
from forebay_server.loadtest.search import Objective, Trial
from forebay_server.loadtest.target import Encoding
from forebay_server.service.cores import usable_cores
from forebay_server.service.request import Delivery

SHARES = (0.9, 1.0, 1.1)


@dataclass(frozen=True, slots=True)
class Offered:
    """One trial and what its frames took: CPU by kind of thread, and the report's parts of the latency."""

    trial: Trial
    cpu_ms: dict[str, float]
    others_cores: float
    mean_batch: float
    p50_ms: float | None
    stages_ms: dict[str, dict[str, float]]


@dataclass(frozen=True, slots=True)
class Round:
    """One comparison: the plan, and the trials at its shares."""

    model: str
    load_average: float
    planned: int
    limit: str
    at: Point | None
    cpu_ms: dict[str, float]
    trials: tuple[Offered, ...]


def compare(wanted: Wanted, fps: float, p99_ms: float, seconds: float) -> Round:
    """Run one round. Blocks: for about a minute."""
    load_average = os.getloadavg()[0]
    costs = measure_costs(wanted)
    here = Machine(usable_cores(), max(1, wanted.front_ends), has_cameras=True)
    plan = make_plan(costs, Cameras(fps, p99_ms, Delivery.LATEST), Target(p99_ms), [(1, here)])
    (group,) = plan.groups
    flags = ("--model-control-mode", "explicit", "--load-model", wanted.model)
    with running_server(None, *flags, model_repository=wanted.repository, front_ends=wanted.front_ends) as server:
        options = replace(
            wanted.load, address=server.address, model=wanted.model, fps=fps, budget=f"{p99_ms}ms", live=False
        )
        counts = sorted({max(1, round(group.fit.fits * share)) for share in SHARES})
        trials = tuple(_trial(server, options, count, seconds) for count in counts)
    cpu_ms = {name.removesuffix("_ns"): ns / 1e6 for name, ns in asdict(costs.frame).items()}
    cpu_ms["model"] = (cpu_ns(costs) - sum(astuple(costs.frame))) / 1e6
    return Round(wanted.model, load_average, group.fit.fits, limit_of(plan, group), group.fit.at, cpu_ms, trials)


def _trial(server: RunningServer, options: LoadOptions, count: int, seconds: float) -> Offered:
    pids = (server.process.pid, *server.others)
    long_enough = max(seconds, 1.5 * min_samples(0.99) / (count * options.fps))
    job = replace(options, cameras=count, duration=f"{long_enough:.1f}s").job()
    before, busy_s, started_s = thread_times(pids), machine_busy_s() - own_busy_s(), time.monotonic()
    document = asyncio.run(measure(job, calibrate=False))
    used, passed_s = thread_times(pids).since(before), time.monotonic() - started_s
    answered = max(1, document["answered"])
    cpu_ms = {name.removesuffix("_ns"): ns / 1e6 / answered for name, ns in asdict(used).items()}
    others_s = machine_busy_s() - own_busy_s() - busy_s - used.total_s
    return Offered(
        trial=trial_of(document, count),
        cpu_ms=cpu_ms | {"camera": camera_s(document) * 1e3 / answered},
        others_cores=max(0.0, others_s / passed_s),
        mean_batch=document["batch_size_mean"] or 0.0,
        p50_ms=document["p50_ms"],
        stages_ms=document["stages_ms"],
    )


def main() -> None:
    """Run the rounds of every model in turn and print a line each, or JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", help="NAME:FPS, as faces:10")
    parser.add_argument("--model-repository", type=Path)
    parser.add_argument("--encoding", default="jpeg")
    parser.add_argument("--size", default="")
    parser.add_argument("--slo-p99-ms", type=float, default=100.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    objective = Objective(p99_ms=given.slo_p99_ms)
    for _ in range(given.rounds):
        for text in given.models:
            name, _, fps = text.partition(":")
            load = LoadOptions(encoding=Encoding(given.encoding), size=given.size)
            wanted = Wanted(model=name, repository=given.model_repository, load=load)
            found = compare(wanted, float(fps or 10), given.slo_p99_ms, given.seconds)
            print(json.dumps(asdict(found)) if given.json else _line(found, objective))
            sys.stdout.flush()


def _line(found: Round, objective: Objective) -> str:
    words = [_words(each, objective) for each in found.trials]
    at = f"p99 {found.at.p99_ms:.0f} ms, {found.at.dropped_share:.1%} dropped" if found.at is not None else "none fits"
    return (
        f"{found.model}: load average {found.load_average:.1f}, {sum(found.cpu_ms.values()):.2f} ms of CPU a frame, "
        f"planned {found.planned} ({at}; limit: {found.limit}); {'; '.join(words)}"
    )


def _words(offered: Offered, objective: Objective) -> str:
    trial = offered.trial
    verdict = "passes" if trial.passes(objective) else "fails" if trial.is_valid else "invalid"
    return (
        f"{trial.load:g}: {verdict} (p99 {trial.p99_ms or 0:.0f} ms, {trial.dropped_share:.1%} dropped, "
        f"{sum(offered.cpu_ms.values()):.2f} ms of CPU a frame, others {offered.others_cores:.2f} cores)"
    )


if __name__ == "__main__":
    main()

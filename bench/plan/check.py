"""`python -m forebay_server.bench.plan.check`: plans against a real server on this machine, which also has the cameras.

Every round measures the costs anew, with real runs of its own, plans, and then offers nine tenths, all and eleven
tenths of the planned cameras (one more at least) to another real server, each for as long as a trial of `forebay load
search`. A plan is right within 10 % if nine tenths pass and eleven tenths do not. On a machine that other programs
use, rounds differ: a trial beside them is repeated at most twice, each line has the load average before it, and each
trial the cores that others had. With --json a trial also has the CPU time of a frame by kind of thread, to compare with
the plan's, and where the time goes.
"""

import argparse
import json
import os
import sys
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path

from forebay_server.bench.plan.fit import Cameras, Machine, Point, Target
from forebay_server.bench.plan.fleet import limit_of, make_plan
from forebay_server.bench.plan.measuring import Wanted, cpu_ns, measure_costs
from forebay_server.bench.plan.offering import offer
from forebay_server.bench.plan.real_runs import RealRuns
from forebay_server.bench.plan.trying import MOST_OTHERS, Asked
from forebay_server.bench.server_process import RunningServer, running_server
from forebay_server.loadtest.capacity import trial_of
from forebay_server.loadtest.options import LoadOptions
from forebay_server.loadtest.quantiles import min_samples
from forebay_server.loadtest.search import Objective, Trial
from forebay_server.loadtest.target import Encoding
from forebay_server.service.cores import usable_cores
from forebay_server.service.request import Delivery


@dataclass(frozen=True, slots=True)
class Tried:
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
    slowdown: float
    real: RealRuns | None
    trials: tuple[Tried, ...]


def compare(wanted: Wanted, fps: float, p99_ms: float, seconds: float) -> Round:
    """Run one round. Blocks: for two minutes or more."""
    load_average = os.getloadavg()[0]
    asked = Asked(Cameras(fps, p99_ms, Delivery.LATEST), Target(p99_ms))
    costs = measure_costs(replace(wanted, asked=asked))
    here = Machine(usable_cores(), max(1, wanted.front_ends), has_cameras=True)
    plan = make_plan(costs, asked.cameras, asked.target, [(1, here)])
    (group,) = plan.groups
    flags = ("--model-control-mode", "explicit", "--load-model", wanted.model)
    with running_server(None, *flags, model_repository=wanted.repository, front_ends=wanted.front_ends) as server:
        options = replace(
            wanted.load, address=server.address, model=wanted.model, fps=fps, budget=f"{p99_ms}ms", live=False
        )
        trials = tuple(_undisturbed_trial(server, options, count, seconds) for count in around(group.fit.fits))
    cpu_ms = {name.removesuffix("_ns"): ns / 1e6 for name, ns in asdict(costs.frame).items()}
    cpu_ms["model"] = (cpu_ns(costs) - sum(astuple(costs.frame))) / 1e6
    return Round(
        wanted.model,
        load_average,
        group.fit.fits,
        limit_of(plan, group),
        group.fit.at,
        cpu_ms,
        costs.slowdown,
        costs.real,
        trials,
    )


def around(planned: int) -> list[int]:
    """Return the numbers to try: nine tenths, all and eleven tenths, of which the last is one more at least."""
    return sorted({max(1, round(0.9 * planned)), max(1, planned), max(planned + 1, round(1.1 * planned))})


def _undisturbed_trial(server: RunningServer, options: LoadOptions, count: int, seconds: float) -> Tried:
    """Return a trial beside which other programs used little, or the last of three."""
    for _ in range(2):
        tried = _trial(server, options, count, seconds)
        if tried.others_cores < MOST_OTHERS * usable_cores():
            return tried
    return _trial(server, options, count, seconds)


def _trial(server: RunningServer, options: LoadOptions, count: int, seconds: float) -> Tried:
    long_enough = max(seconds, 1.5 * min_samples(0.99) / (count * options.fps))
    offered = offer(server, replace(options, cameras=count, duration=f"{long_enough:.1f}s"))
    document = offered.document
    answered = max(1, document["answered"])
    cpu_ms = {name.removesuffix("_ns"): ns / 1e6 / answered for name, ns in asdict(offered.used).items()}
    return Tried(
        trial=trial_of(document, count),
        cpu_ms=cpu_ms | {"camera": offered.camera_s * 1e3 / answered},
        others_cores=offered.others_cores,
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
    parser.add_argument("--seconds", type=float, default=20.0)
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
        f"promised {found.real.promised if found.real else '-'}, slowdown {found.slowdown:.2f}, "
        f"planned {found.planned} ({at}; limit: {found.limit}); {'; '.join(words)}"
    )


def _words(tried: Tried, objective: Objective) -> str:
    trial = tried.trial
    verdict = "passes" if trial.passes(objective) else "fails" if trial.is_valid else "invalid"
    return (
        f"{trial.load:g}: {verdict} (p99 {trial.p99_ms or 0:.0f} ms, {trial.dropped_share:.1%} dropped, "
        f"{sum(tried.cpu_ms.values()):.2f} ms of CPU a frame, others {tried.others_cores:.2f} cores)"
    )


if __name__ == "__main__":
    main()

"""`python -m forebay_server.bench.plan.check`: plans against a real server on this machine, which also has the cameras.

Every round measures the costs anew, plans, and then offers nine tenths, all and eleven tenths of the planned cameras
to a real server. A plan is right within 10 % if nine tenths pass and eleven tenths do not. On a machine that other
programs use, rounds differ: each line has the load average before it.
"""

import argparse
import asyncio
import json
import os
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from forebay_server.bench.plan.fit import Cameras, Machine, Target, fit
from forebay_server.bench.plan.measuring import Wanted, measure_costs
from forebay_server.bench.server_process import running_server
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
class Round:
    """One comparison: the plan, and the trials at its shares."""

    model: str
    load_average: float
    planned: int
    planned_p99_ms: float
    planned_dropped: float
    cpu_ms_per_frame: float
    trials: tuple[Trial, ...]


def compare(wanted: Wanted, fps: float, p99_ms: float, seconds: float) -> Round:
    """Run one round. Blocks: for about a minute."""
    load_average = os.getloadavg()[0]
    costs = measure_costs(wanted)
    here = Machine(usable_cores(), max(1, wanted.front_ends), has_cameras=True)
    found = fit(costs, Cameras(fps, p99_ms, Delivery.LATEST), here, Target(p99_ms))
    frame = asdict(costs.frame)
    at = found.at
    flags = ("--model-control-mode", "explicit", "--load-model", wanted.model)
    with running_server(None, *flags, model_repository=wanted.repository, front_ends=wanted.front_ends) as server:
        options = replace(
            wanted.load, address=server.address, model=wanted.model, fps=fps, budget=f"{p99_ms}ms", live=False
        )
        counts = sorted({max(1, round(found.fits * share)) for share in SHARES})
        trials = tuple(_trial(options, count, seconds) for count in counts)
    return Round(
        model=wanted.model,
        load_average=load_average,
        planned=found.fits,
        planned_p99_ms=at.p99_ms if at is not None else 0.0,
        planned_dropped=at.dropped_share if at is not None else 0.0,
        cpu_ms_per_frame=(sum(frame.values()) + costs.table.execute_ns[0]) / 1e6,
        trials=trials,
    )


def _trial(options: LoadOptions, count: int, seconds: float) -> Trial:
    long_enough = max(seconds, 1.5 * min_samples(0.99) / (count * options.fps))
    job = replace(options, cameras=count, duration=f"{long_enough:.1f}s").job()
    return trial_of(asyncio.run(measure(job, calibrate=False)), count)


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
    words = [
        f"{trial.load:g}: {'passes' if trial.passes(objective) else 'fails'}"
        f" (p99 {trial.p99_ms or 0:.0f} ms, {trial.dropped_share:.1%} dropped{'' if trial.is_valid else ', invalid'})"
        for trial in found.trials
    ]
    return (
        f"{found.model}: load average {found.load_average:.1f}, {found.cpu_ms_per_frame:.2f} ms of CPU a frame, "
        f"planned {found.planned} (p99 {found.planned_p99_ms:.0f} ms, {found.planned_dropped:.1%} dropped); "
        f"{'; '.join(words)}"
    )


if __name__ == "__main__":
    main()

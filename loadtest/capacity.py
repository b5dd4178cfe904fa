"""The capacity search against a real server: each trial is a run, and the answer is printed as an interval."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace

from forebay_server.loadtest.errors import ExitCode
from forebay_server.loadtest.measure import measure, stopped_by_signals
from forebay_server.loadtest.options import LoadOptions
from forebay_server.loadtest.output import write_json
from forebay_server.loadtest.quantiles import min_samples
from forebay_server.loadtest.report import Document
from forebay_server.loadtest.scenario import ArrivalProcess
from forebay_server.loadtest.search import Bounds, Capacity, Objective, Trial, find_capacity
from forebay_server.loadtest.verdict import Verdict

CAMERAS = "cameras"  # the unit of a search over streams
ENOUGH = 1.5  # times the samples that the interval needs, because some are cut as warm-up


Run = Callable[[LoadOptions, asyncio.Event], Awaitable[Document]]


async def run_once(options: LoadOptions, stop: asyncio.Event) -> Document:
    """Run the measurement that the options describe, without the generator's own ceiling."""
    return await measure(
        options.job(),
        agents=tuple(options.agent or ()),
        good_within_ms=options.good_within_ms(),
        calibrate=False,
        live=options.live,
        stop=stop,
    )


async def search_capacity(
    options: LoadOptions, objective: Objective, bounds: Bounds, json_path: str | None, run: Run = run_once
) -> int:
    """Search, print, and return the exit code: 3 if not even the lowest load keeps the target, 130 after Ctrl-C."""

    async def trial(load: float) -> Trial:
        at_load = _long_enough(replace(options, cameras=int(load)) if bounds.is_whole else replace(options, rate=load))
        result = replace(trial_of(await run(at_load, stop), load), is_interrupted=stop.is_set())
        if not result.is_interrupted:
            sys.stderr.write(_line(result, objective))
        return result

    with stopped_by_signals() as stop:
        capacity = await find_capacity(trial, objective, bounds)
    unit = CAMERAS if bounds.is_whole else "frames/s"
    write_json(json_path, to_document(capacity, options, objective, unit), text(capacity, options, objective, unit))
    if capacity.is_interrupted:
        return int(ExitCode.INTERRUPTED)
    if capacity.highest_passing is not None:
        return int(ExitCode.OK)
    return int(ExitCode.SLO_MISSED if all(trial.is_valid for trial in capacity.trials) else ExitCode.INVALID)


def _long_enough(options: LoadOptions) -> LoadOptions:
    """Return the options with a run long enough for p99's interval at a low rate."""
    scenario = options.job().scenario
    needed_s = ENOUGH * min_samples(0.99) / scenario.offered_per_s
    return replace(options, duration=f"{needed_s:.1f}s") if needed_s > scenario.duration_s else options


def trial_of(document: Document, load: float) -> Trial:
    """Return the result of a run for its load."""
    ends = document["p99_ci_ms"]
    return Trial(
        load=load,
        p99_ms=document["p99_ms"],
        p99_upper_ms=ends[1] if ends else None,
        dropped_share=document["dropped_share"] if document["dropped_share"] is not None else 1.0,
        is_valid=document["verdict"] != Verdict.INVALID,
        remark="; ".join(document["reasons"]),
    )


def text(capacity: Capacity, options: LoadOptions, objective: Objective, unit: str) -> str:
    """Return the answer in words."""
    low, high = capacity.highest_passing, capacity.lowest_failing
    per_stream = f" of {options.fps:g} fps" if options.job().scenario.arrival is ArrivalProcess.CAMERAS else ""

    def load(value: float) -> str:
        return f"{value:g} {unit.removesuffix('s') if value == 1 and unit == CAMERAS else unit}{per_stream}"

    if capacity.is_interrupted:
        ends = [f"passed: {load(low)}" if low else "", f"failed: {load(high)}" if high else ""]
        answer = "; ".join(["interrupted, no answer", *filter(None, ends)])
    elif low is None:
        answer = f"{load(high or 0)} is already too much for the target"
    elif high is None:
        answer = f"at least {load(low)}: with the highest load that was allowed the target still holds"
    else:
        answer = f"the target holds with {load(low)} every time, with {high:g} it does not"
    runs = len(capacity.trials)
    return (
        f"capacity: {answer}\n"
        f"target: upper end of p99 within {objective.p99_ms:g} ms, at most {objective.dropped_share:.2%} dropped;"
        f" {runs} {'run' if runs == 1 else 'runs'} of {options.duration} or more\n"
        + (f"{capacity.remark}\n" if capacity.remark else "")
    )


def to_document(capacity: Capacity, options: LoadOptions, objective: Objective, unit: str) -> Document:
    """Return the answer for JSON."""
    return {
        "schema": "forebay.load.search/1",
        "unit": unit,
        "fps": options.fps,
        "highest_passing": capacity.highest_passing,
        "lowest_failing": capacity.lowest_failing,
        "target": asdict(objective),
        "is_interrupted": capacity.is_interrupted,
        "remark": capacity.remark,
        "trials": [asdict(trial) | {"passes": trial.passes(objective)} for trial in capacity.trials],
    }


def _line(trial: Trial, objective: Objective) -> str:
    upper = "-" if trial.p99_upper_ms is None else f"{trial.p99_upper_ms:.1f}"
    word = "passes" if trial.passes(objective) else "fails"
    remark = f" ({trial.remark})" if trial.remark else ""
    return f"{trial.load:>10g}  p99 <= {upper:>8} ms  dropped {trial.dropped_share:7.2%}  {word}{remark}\n"

"""The rows of the report that other benchmarks of this folder measure, and the capacity of the bundled detector."""

import math
from collections.abc import Iterator
from typing import Any

from forebay_server.bench.batching import BatchingBenchOptions, run_batching_bench
from forebay_server.bench.cameras import CAMERAS, LEAST_SHARE, measure_cameras
from forebay_server.bench.rows import Row, Spread
from forebay_server.bench.server_process import running_server
from forebay_server.bench.startup import measure_startup
from forebay_server.bench.throughput import load

MOST_CAMERAS = 32
CAPACITY_SLO = "100ms"
CAPACITY_SEARCHES = (("10", "2"), ("30", "1"))  # frames per second of a camera, cameras to try first
BATCHING_CELLS = (
    ("cameras", 0.9, "p99_ms", "ms", 19.5, False),
    ("cameras", 0.9, "shed_share", "", 0.0, False),
    ("poisson", 0.8, "p99_ms", "ms", 19.5, False),
    ("poisson", 1.2, "goodput_per_s", "/s", 3300.0, True),
    ("poisson", 1.2, "late_share", "", 0.005, False),
    ("cameras", 1.5, "jain", "", 0.99, True),
)
"""Workload, load, number, unit, budget, whether higher is better."""


def batching_rows(*, is_quick: bool) -> Iterator[Row]:
    """Batching in virtual time, where the bars are the budgets, and one decision in real CPU time."""
    seconds = 5.0 if is_quick else 10.0
    cells = {}
    for workload, at in dict.fromkeys((cell[0], cell[1]) for cell in BATCHING_CELLS):
        options = BatchingBenchOptions(
            workloads=(workload,),
            loads=(at,),
            policies=("jit_edf",),
            seconds=seconds,
            is_decide_measured=(workload, at) == ("poisson", 1.2),
        )
        report = run_batching_bench(options, out=lambda _: None)
        cells[workload, at] = report["results"][0]
        if report["decide"] is not None:
            mean, growth = report["decide"]["mean_us"], report["decide"]["growth"]
            yield Row("decide(), mean CPU a call, poisson 1.2", Spread.of([mean]), "us", 50.0)
            yield Row("decide(), 200 pending over 50", Spread.of([growth]), "", 4.0, 4.0)
    for workload, at, name, unit, budget, is_higher_better in BATCHING_CELLS:
        value = Spread.of([float(cells[workload, at][name])])
        what = f"batching in virtual time, {workload} at {at:g}: {name}"
        yield Row(what, value, unit, budget, budget, is_higher_better)


def cameras_rows(*, is_quick: bool) -> Iterator[Row]:
    """Cameras against a slow simulated engine, below and above its capacity."""
    seconds, repeats = (10.0, 1) if is_quick else (20.0, 3)
    for cameras in CAMERAS:
        results = [measure_cameras(cameras, seconds) for _ in range(repeats)]
        account = results[-1].account
        yield Row(
            f"{cameras} cameras of 30 fps, 602 KB, engine 15+1b ms: in time, share of the possible",
            Spread.of([result.share for result in results]),
            "",
            LEAST_SHARE,
            None,
            is_higher_better=True,
            note=f"p99 {account.p99_ms:.0f} ms; the client was {account.lag_p99_ms:.0f} ms late (p99)",
        )


def startup_rows(*, is_quick: bool) -> Iterator[Row]:
    """Start to ready, and memory at rest."""
    result = measure_startup(2 if is_quick else 5)
    first = result.first
    yield Row("start to ready, bundled models, nothing saved", Spread.of([first.ready_s]), "s", 4.0)
    yield Row("start to ready, bundled models, saved cost table", result.ready_s, "s", 2.0)
    yield Row("CPU until ready", result.cpu_s, "s")
    yield Row("memory (PSS), idle, bundled models", result.pss_mb, "MB", 200.0, 220.0)


def capacity_rows(*, is_quick: bool) -> Iterator[Row]:
    """Cameras of 10 and of 30 fps that the bundled detector carries, JPEG frames of the bundled clip."""
    if is_quick:
        return
    with running_server() as server:
        for fps, first in CAPACITY_SEARCHES:
            options = ["--slo-p99", CAPACITY_SLO, "--max-dropped", "1", "--highest", str(MOST_CAMERAS)]
            options += ["--fps", fps, "--first", first, "--repeats", "2", "--duration", "20s"]
            yield _capacity_row(fps, load(server.address, *options, command=("search",)))


def _capacity_row(fps: str, found: dict[str, Any]) -> Row:
    """Return the interval between the largest load that passed every time and the smallest that failed."""
    passing, failing = found["highest_passing"] or 0.0, found["lowest_failing"]
    note = f"p99's interval within {CAPACITY_SLO} and at most 1 % dropped, twice; {len(found['trials'])} runs"
    invalid = sum(not trial["is_valid"] for trial in found["trials"])
    if invalid:
        note += f", {invalid} of them INVALID"
        passing = passing or math.nan  # the generator was the limit, so that nothing is known
    note += f"; {failing:g} cameras fail" if failing else f"; no more than {MOST_CAMERAS} were tried"
    if found["remark"]:
        note += f"; {found['remark']}"
    return Row(f"bundled detector: cameras of {fps} fps", Spread.of([passing]), is_higher_better=True, note=note)

"""`forebay bench batching`: the batch former against the policies it replaces, in virtual time or with real threads.

Every cell is one workload at one load under one policy; the theoretical bound stands beside it. Virtual time drives the
same core that serves (policy, pending queue, cost model) and is deterministic; `--real` runs the thread and a real
clock, takes the median of several runs, and is void on a machine whose timers are late.
"""

import dataclasses
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from forebay_server.bench.batching_bars import judge, load_bars
from forebay_server.bench.batching_metrics import Cell, evaluate
from forebay_server.bench.batching_report import draw, heading, line, real_summary, verdict_lines
from forebay_server.bench.batching_workloads import KINDS, SECOND_NS, Workload
from forebay_server.bench.decide_cost import measure_decide_cost
from forebay_server.bench.real_check import deviations, is_within
from forebay_server.bench.real_time import run_real
from forebay_server.bench.virtual_time import simulate
from forebay_server.service.batching.settings import BatchingSettings, PolicyName

POLICIES = ("jit_edf", "eager", "window", "preferred")
WINDOW_US = 5_000
PREFERRED = (4, 8, 16, 32)
REAL_CELLS = (
    ("cameras", 0.6),
    ("cameras", 0.9),
    ("cameras", 1.0),
    ("cameras", 1.5),
    ("cameras_latest", 1.5),
    ("poisson", 0.8),
    ("poisson", 1.2),
    ("mixed", 1.0),
    ("drift", 0.8),
)
"""The default cells of `--real`: the cells that have bars, under jit_edf; all cells would take an hour."""
REAL_RUNS = 5


@dataclass(frozen=True, slots=True)
class BatchingBenchOptions:
    """The cells to run.

    Attributes:
        is_real: real threads and a real clock instead of virtual time.
        is_json: print one JSON object instead of a table.
        workloads: kinds to run, empty for all.
        loads: loads to run, empty for those of each kind.
        policies: policies to run; empty for all, or for jit_edf alone if `is_real`.
        seconds: traffic per cell.
        seed: of traces and executors.
        runs: with real threads, runs per cell, whose median counts.
        is_decide_measured: measure what a decision costs too (virtual time only).
        plots: directory for p99 and goodput against load, None for no plots.
    """

    is_real: bool = False
    is_json: bool = False
    workloads: tuple[str, ...] = ()
    loads: tuple[float, ...] = ()
    policies: tuple[str, ...] = ()
    seconds: float = 10.0
    seed: int = 1
    runs: int = REAL_RUNS
    is_decide_measured: bool = True
    plots: Path | None = None

    def __post_init__(self) -> None:
        _check_names("workload", self.workloads, KINDS)
        _check_names("policy", self.policies, POLICIES)
        if self.seconds <= 0 or self.runs < 1 or any(load <= 0 for load in self.loads):
            raise ValueError("seconds and loads must be more than 0, runs at least 1")


def _check_names(what: str, names: Sequence[str], known: Sequence[str] | dict[str, Any]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"unknown {what} {name!r}; one of: {', '.join(known)}")


def run_batching_bench(options: BatchingBenchOptions, out: Callable[[str], None] = print) -> dict[str, Any]:
    """Run the cells, print a table or JSON to `out`, draw the plots if asked; return what the JSON holds."""
    if not options.is_json:
        out(heading())
    results = []
    for cell, extra in _cells(options):
        results.append(dataclasses.asdict(cell) | extra)
        if not options.is_json:
            out(line(cell, extra))
    is_timed = options.is_decide_measured and not options.is_real
    decide = dataclasses.asdict(measure_decide_cost(options.seconds)) if is_timed else None
    verdicts = [] if options.is_real else judge(results, decide, load_bars())  # real cells are held to virtual ones
    report: dict[str, Any] = {
        "mode": "real" if options.is_real else "virtual",
        "seconds": options.seconds,
        "seed": options.seed,
        "results": results,
        "decide": decide,
        "bars": [dataclasses.asdict(v.bar) | {"value": v.value, "is_met": v.is_met} for v in verdicts],
    }
    if options.plots is not None:
        report["plots"] = [str(path) for path in draw(results, options.plots)]
    if options.is_json:
        out(json.dumps(report, indent=1))
    else:
        for text in verdict_lines(verdicts, decide):
            out(text)
        if options.is_real:
            out(real_summary(results))
    return report


def _cells(options: BatchingBenchOptions) -> Iterator[tuple[Cell, dict[str, Any]]]:
    for kind, load in _wanted(options):
        workload = KINDS[kind][0](load, options.seconds, options.seed)
        for policy in options.policies or (("jit_edf",) if options.is_real else POLICIES):
            settings = settings_of(policy, workload)
            if options.is_real:
                yield _real_cell(workload, policy, settings, options)
            else:
                yield _virtual_cell(workload, policy, settings, options), {}


def _wanted(options: BatchingBenchOptions) -> list[tuple[str, float]]:
    is_default = options.is_real and not options.workloads and not options.loads
    if is_default:
        return list(REAL_CELLS)
    return [(kind, load) for kind in options.workloads or KINDS for load in options.loads or KINDS[kind][1]]


def settings_of(policy: str, workload: Workload) -> BatchingSettings:
    """Return the settings of a policy of the benchmark; window and preferred hold for 5 ms, as Triton is often set."""
    largest = workload.executor.max_batch_size
    match policy:
        case "window":
            return BatchingSettings(largest, max_queue_delay_us=WINDOW_US, policy=PolicyName.WINDOW)
        case "preferred":
            sizes = tuple(size for size in PREFERRED if size <= largest)
            return BatchingSettings(
                largest, preferred_batch_sizes=sizes, max_queue_delay_us=WINDOW_US, policy=PolicyName.WINDOW
            )
        case _:
            return BatchingSettings(largest, policy=PolicyName(policy))


def _virtual_cell(workload: Workload, policy: str, settings: BatchingSettings, options: BatchingBenchOptions) -> Cell:
    run = simulate(workload, settings, seed=options.seed)
    return evaluate(
        workload,
        policy,
        run.finished_ns,
        run.batch_rows,
        cpu_us_per_request=run.cpu_s / max(1, len(workload.arrivals_ns)) * 1e6,
        simulated_s_per_s=run.simulated_ns / SECOND_NS / max(1e-9, run.cpu_s),
    )


def _real_cell(
    workload: Workload, policy: str, settings: BatchingSettings, options: BatchingBenchOptions
) -> tuple[Cell, dict[str, Any]]:
    """Return the medians of several runs, how late timers were, and how far that is from virtual time."""
    runs = []
    for number in range(options.runs):
        real = run_real(workload, settings, seed=options.seed + number)
        runs.append((evaluate(workload, policy, real.finished_ns, real.batch_rows), real))
    middle: dict[str, Any] = {}
    for name in ("p50_ms", "p99_ms", "p999_ms", "goodput_per_s", "in_time_share", "late_share", "shed_share",
                 "mean_batch", "jain", "worst_stream_share"):  # fmt: skip
        values = [value for cell, _ in runs if (value := getattr(cell, name)) is not None]
        middle[name] = statistics.median(values) if values else None
    classes = [cell.in_time_share_by_class for cell, _ in runs]
    middle["in_time_share_by_class"] = {key: float(np.median([c[key] for c in classes])) for key in classes[0]}
    lag_ms = float(np.median([real.timer_lag_p99_ms for _, real in runs]))
    voids = sum(real.is_void for _, real in runs)
    cell = dataclasses.replace(runs[0][0], **middle)
    virtual = _virtual_cell(workload, policy, settings, options)
    found = deviations(dataclasses.asdict(cell), dataclasses.asdict(virtual), load_bars())
    extra = {
        "runs": len(runs),
        "timer_lag_p99_ms": lag_ms,
        "is_void": voids > len(runs) // 2,
        "deviation_from_virtual": found,
        "is_within_tolerance": is_within(found),
    }
    return cell, extra

"""`forebay bench`: the benchmarks that a user may want to run on their own machine."""

import sys
from pathlib import Path
from typing import Annotated

import typer

bench_app = typer.Typer(
    name="bench",
    help="Run the benchmarks of docs/benchmarks.md on this machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)


@bench_app.callback()
def _group() -> None:
    """Run the benchmarks of docs/benchmarks.md on this machine."""


@bench_app.command()
def batching(
    *,
    is_real: Annotated[bool, typer.Option("--real", help="real threads and a real clock, not virtual time")] = False,
    is_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
    workload: Annotated[list[str] | None, typer.Option(help="poisson, cameras, bursty, mixed, ...; repeat")] = None,
    load: Annotated[list[float] | None, typer.Option(help="share of the capacity; repeat")] = None,
    policy: Annotated[list[str] | None, typer.Option(help="jit_edf, eager, window or preferred; repeat")] = None,
    seconds: Annotated[float, typer.Option(help="traffic per cell, in seconds")] = 10.0,
    seed: Annotated[int, typer.Option(help="of arrivals and executions")] = 1,
    repeats: Annotated[int, typer.Option(help="with --real: runs per cell, of which the median counts")] = 5,
    plots: Annotated[Path | None, typer.Option(help="folder for p99 and goodput against load")] = None,
) -> None:
    """Compare the batch former with other policies and with the theoretical bound."""
    from forebay_server.bench.batching import BatchingBenchOptions, run_batching_bench

    try:
        _check_plots(plots)
        options = BatchingBenchOptions(
            is_real=is_real,
            is_json=is_json,
            workloads=tuple(workload or ()),
            loads=tuple(load or ()),
            policies=tuple(policy or ()),
            seconds=seconds,
            seed=seed,
            runs=repeats,
            plots=plots,
        )
    except ValueError as error:
        typer.echo(f"forebay bench: {error}", err=True)
        sys.exit(2)
    run_batching_bench(options, out=typer.echo)


def _check_plots(folder: Path | None) -> None:
    """Raise ValueError, before the run, if plots cannot be drawn or written."""
    from importlib.util import find_spec

    from forebay_server.loadtest.places import place_fault

    if folder is None:
        return
    if find_spec("matplotlib") is None:
        raise ValueError("--plots needs matplotlib: pip install matplotlib")
    if problem := place_fault(folder / "batching_p99.svg", makes_folders=True):
        raise ValueError(f"--plots: {problem}")


@bench_app.command()
def identity() -> None:
    """Measure what a frame costs the server when the model costs nothing."""
    from forebay_server.bench.identity import main

    main()

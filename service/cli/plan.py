"""`forebay plan`: how many cameras fit on which machines at which latency, by simulation from costs measured here."""

import contextlib
import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from forebay_server.service.cli import exit_codes

if TYPE_CHECKING:
    from forebay_server.bench.plan.costs import PlanCosts
    from forebay_server.bench.plan.fit import Cameras, Machine
    from forebay_server.bench.plan.trying import Asked
    from forebay_server.loadtest.options import LoadOptions
    from forebay_server.loadtest.target import Encoding


_OF_MEASURING = ("model_repository", "encoding", "size", "quality", "frames", "save", "seconds")
"""Parameters that say what to measure, so that they mean nothing beside costs from a file."""


def plan(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="name of the model; left out with --costs", metavar="MODEL")] = "",
    *,
    model_repository: Annotated[
        Path | None, typer.Option("--model-repository", "-m", help="folder of the model [the bundled models]")
    ] = None,
    fps: Annotated[float, typer.Option(min=0.01, max=1000, help="frames a second of each camera")] = 30.0,
    encoding: Annotated[str, typer.Option(help="jpeg, png, rgb8, bgr8, nv12, mono8, h264, h265 or tensor")] = "jpeg",
    size: Annotated[str, typer.Option(help="of a frame, WIDTHxHEIGHT [the pictures' own]")] = "",
    quality: Annotated[int, typer.Option(min=1, max=100, help="of JPEG")] = 85,
    frames: Annotated[str, typer.Option(help="video or folder of pictures to send [the bundled clip]")] = "",
    budget: Annotated[str, typer.Option(help="latency budget of a frame, as 200ms or 0.2 (s) [--slo-p99]")] = "",
    delivery: Annotated[str, typer.Option(help="latest or every")] = "latest",
    slo_p99: Annotated[str, typer.Option(help="p99 must stay within this, interval included")] = "100ms",
    max_dropped: Annotated[float, typer.Option(min=0, max=100, help="per cent of frames without a result")] = 1.0,
    machines: Annotated[
        list[str] | None, typer.Option(help="cores, or COUNTxCORES, as 3x8; repeat for other kinds [one like this]")
    ] = None,
    front_ends: Annotated[int | None, typer.Option(min=0, help="front-end processes [as `forebay serve` does]")] = None,
    taken: Annotated[float, typer.Option(min=0, help="cores that other programs use on each machine")] = 0.0,
    cameras_here: Annotated[
        bool, typer.Option("--cameras-here", help="the cameras' programs run on the same machine")
    ] = False,
    cameras: Annotated[int | None, typer.Option(min=1, help="cameras that you have: do they fit?")] = None,
    seed: Annotated[int, typer.Option(min=0, help="of the simulation")] = 1,
    costs_file: Annotated[
        Path | None, typer.Option("--costs", help="costs from this file; nothing is measured")
    ] = None,
    save: Annotated[Path | None, typer.Option(help="write the measured costs here")] = None,
    seconds: Annotated[
        float, typer.Option(min=2, max=600, help="of the measurement; the real runs take three times as long")
    ] = 8.0,
    chart: Annotated[Path | None, typer.Option(help="write p99 against cameras here, as SVG")] = None,
    is_json: Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else")] = False,
) -> None:
    """Say how many cameras fit on which machines, and at which latency. Exit code 1: fewer than --cameras."""
    with _errors():
        from forebay_server.bench.plan.chart import chart as draw
        from forebay_server.bench.plan.fit import Target
        from forebay_server.bench.plan.fleet import make_plan, to_document, to_text
        from forebay_server.bench.plan.trying import Asked
        from forebay_server.loadtest.errors import UsageError
        from forebay_server.loadtest.frames import check_source
        from forebay_server.loadtest.options import LoadOptions
        from forebay_server.loadtest.options import seconds as seconds_of

        if bool(model) == (costs_file is not None):
            both = ", not both: the file is of one model" if model else ""
            raise UsageError(f"give the name of a model, or --costs with a file that --save wrote{both}")
        _refuse_measuring(context, costs_file)
        load = LoadOptions(encoding=_encoding(encoding), size=size, quality=quality, frames=frames)
        load.job()  # raises now rather than after the server's start
        target = Target(seconds_of(slo_p99, "--slo-p99") * 1e3, max_dropped / 100)
        if not target.p99_ms:
            raise UsageError(f"--slo-p99 is {slo_p99!r}, which no frame can keep; give a time above 0, such as 100ms")
        streams = _cameras(fps, budget or slo_p99, delivery)
        kinds = _machines(machines or [], front_ends, taken, has_cameras=cameras_here)
        check_source(frames)
        _check_places(save, chart)
        asked = Asked(streams, target)
        costs = _costs(model, model_repository, load, costs_file, kinds, seconds, asked, is_quiet=is_json)
        if save is not None:
            save.write_text(costs.to_json(), encoding="utf-8")
        made = make_plan(costs, streams, target, kinds, cameras, seed)
        if chart is not None:
            chart.write_text(draw(made), encoding="utf-8")
    text = json.dumps(to_document(made), indent=1, allow_nan=False) + "\n" if is_json else to_text(made)
    typer.echo(text, nl=False)
    if not made.is_enough:
        raise typer.Exit(exit_codes.FAILED)


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """Turn errors that a user can mend into one line and a documented exit code."""
    from forebay_server.bench.plan.costs import CostsError
    from forebay_server.loadtest.errors import LoadTestError

    try:
        yield
    except LoadTestError as error:
        _end(error, int(error.exit_code))
    except (CostsError, RuntimeError) as error:  # RuntimeError: the server did not start, and its own lines say why
        _end(error, exit_codes.MODEL)
    except OSError as error:
        _end(f"cannot write {error.filename}: {error.strerror}", exit_codes.CANNOT_WRITE)


def _end(message: object, code: int) -> NoReturn:
    typer.echo(f"forebay plan: {message}", err=True)
    raise typer.Exit(code) from None


def _refuse_measuring(context: typer.Context, costs_file: Path | None) -> None:
    """Raise UsageError for options that would be ignored because nothing is measured."""
    from forebay_server.loadtest.errors import UsageError

    if costs_file is None:
        return
    sources = {name: context.get_parameter_source(name) for name in _OF_MEASURING}
    given = [f"--{name.replace('_', '-')}" for name, source in sources.items() if source and source.name != "DEFAULT"]
    if given:
        raise UsageError(
            f"{', '.join(given)}: nothing is measured beside --costs, whose file is of one model and kind of frames; "
            f"leave {'it' if len(given) == 1 else 'them'} out, or measure: give the model's name instead of --costs"
        )


def _encoding(text: str) -> "Encoding":
    from forebay_server.loadtest.errors import UsageError
    from forebay_server.loadtest.target import Encoding

    if text not in set(Encoding):
        raise UsageError(f"--encoding is {text!r}: one of {', '.join(Encoding)}")
    return Encoding(text)


def _cameras(fps: float, budget: str, delivery: str) -> "Cameras":
    from forebay_server.bench.plan.fit import Cameras
    from forebay_server.loadtest.errors import UsageError
    from forebay_server.loadtest.options import seconds
    from forebay_server.service.request import Delivery

    if delivery not in {"latest", "every"}:
        raise UsageError(f"--delivery is {delivery!r}: latest or every")
    return Cameras(fps, seconds(budget, "--budget") * 1e3, Delivery(delivery))


def _machines(
    texts: list[str], front_ends: int | None, taken: float, *, has_cameras: bool
) -> list[tuple[int, "Machine"]]:
    """Return the machines with their front ends as `forebay serve` would have them. Raises UsageError."""
    from forebay_server.bench.plan.fit import Machine
    from forebay_server.bench.plan.fleet import parse_machines
    from forebay_server.loadtest.errors import UsageError
    from forebay_server.service.cores import usable_cores
    from forebay_server.service.group.count import CountError, front_end_count

    try:
        kinds = [parse_machines(text) for text in texts] or [(1, usable_cores())]
        least = min(cores for _, cores in kinds)
        if taken >= least:
            raise UsageError(f"--taken is {taken:g}, of a machine with {least} cores: none is left for the server")
        return [
            (
                count,
                Machine(
                    cores,
                    max(1, front_end_count("auto" if front_ends is None else front_ends, cores)),
                    taken,
                    has_cameras,
                ),
            )
            for count, cores in kinds
        ]
    except (CountError, ValueError) as error:
        raise UsageError(str(error)) from None


def _check_places(save: Path | None, chart: Path | None) -> None:
    """Raise UsageError now rather than after the measurement if a file cannot be written."""
    from forebay_server.loadtest.errors import UsageError
    from forebay_server.loadtest.places import place_fault

    if chart is not None and chart.suffix.lower() != ".svg":
        raise UsageError(f"--chart {chart}: the chart is SVG, so its name must end in .svg")
    for path in (save, chart):
        if path is not None and (problem := place_fault(path)):
            raise UsageError(problem)


def _costs(
    model: str,
    repository: Path | None,
    load: "LoadOptions",
    file: Path | None,
    kinds: list[tuple[int, "Machine"]],
    seconds: float,
    asked: "Asked",
    *,
    is_quiet: bool,
) -> "PlanCosts":
    from forebay_server.bench.plan.costs import read_costs

    if file is not None:
        return read_costs(file)
    _check_model(model, repository)
    from forebay_server.bench.plan.measuring import Wanted, measure_costs
    from forebay_server.service.cores import usable_cores

    most = max(machine.front_ends for _, machine in kinds)
    front_ends = 0 if most == 1 else min(most, usable_cores())
    where = None if repository is None else repository.absolute()  # the server runs in a folder of its own
    wanted = Wanted(model=model, repository=where, load=load, front_ends=front_ends, seconds=seconds, asked=asked)
    return measure_costs(wanted, (lambda _: None) if is_quiet or not sys.stderr.isatty() else _say)


def _check_model(name: str, path: Path | None) -> None:
    """Find a name that is no model's before a server starts.

    Raises:
        UsageError: it is a file.
        CostsError: there is no such model; the line has those that there are.
    """
    from forebay_server.bench.plan.costs import CostsError
    from forebay_server.loadtest.errors import UsageError
    from forebay_server.service.models.registry import BUNDLED_REPOSITORY
    from forebay_server.service.models.repository import Repository, RepositoryError

    if path is None and Path(name).is_file():
        words = f"-m {shlex.quote(name)} {Path(name).stem}"
        raise UsageError(f"{name} is a file: give the name of its model, and the file with -m: {words}")
    try:
        repository = Repository([path or BUNDLED_REPOSITORY])
        problem = "" if repository.has(name) else repository.say_missing(name)
    except RepositoryError as error:
        raise CostsError(str(error)) from None
    if problem:
        raise CostsError(problem)


def _say(line: str) -> None:
    typer.echo(line, err=True)

"""`forebay engine build | quantize | inspect | verify | profile`: prepare and examine model files."""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from forebay_server.service.cli import exit_codes

engine_app = typer.Typer(
    help="Build plans, lower precision, inspect, verify and profile models.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

ModelPath = Annotated[Path, typer.Argument(metavar="MODEL", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="where to write it")]
Color = Annotated[str | None, typer.Option(help="BGR, RGB or GRAY [from the configuration]")]
Mean = Annotated[str | None, typer.Option(help="subtracted from 0..255, for FP32 and FP16 [from the configuration]")]
Scale = Annotated[str | None, typer.Option(help="multiplied after that, for FP32 and FP16 [from the configuration]")]
DeviceKind = Annotated[str | None, typer.Option(help="cpu or cuda [what the file's backend runs on]")]


@engine_app.command()
def build(
    model: ModelPath,
    *,
    output: Output = None,
    backend: Annotated[str, typer.Option(help="auto, tensorrt or tensorrt-rtx")] = "auto",
    max_batch: Annotated[int, typer.Option(min=1, help="most rows of one execution")] = 8,
    profiles: Annotated[
        str | None, typer.Option(help="LEAST:BEST:MOST rows of each profile, as in 1:1:1,1:8:16 [1 and max-batch]")
    ] = None,
    workspace: Annotated[int, typer.Option(min=1, help="MiB of scratch memory for a layer")] = 1024,
    level: Annotated[int, typer.Option(min=0, max=5, help="0 builds fast, 5 runs fast")] = 3,
    compatibility: Annotated[str, typer.Option(help="none, ampere_plus or same_compute_capability")] = "none",
    version_compatible: Annotated[bool, typer.Option(help="let later releases of TensorRT run it")] = False,
    timing_cache: Annotated[Path | None, typer.Option(help="file that makes later builds faster")] = None,
    is_json: Json = False,
) -> None:
    """Build a TensorRT plan from an ONNX model, with the manifest that makes it trusted."""
    with _errors():
        from forebay_server.engines.build.plans import COMPATIBILITY, BuildSettings, build_plan
        from forebay_server.engines.build.profiles import parse_rows
        from forebay_server.engines.errors import ModelFileError

        if compatibility not in COMPATIBILITY:
            raise ModelFileError(f"--compatibility is {compatibility!r}: one of {', '.join(COMPATIBILITY)}")
        settings = BuildSettings(
            library=backend,
            max_batch=max_batch,
            rows=parse_rows(profiles) if profiles else (),
            workspace_mib=workspace,
            optimization_level=level,
            compatibility=compatibility,
            is_version_compatible=version_compatible,
            timing_cache=timing_cache,
        )
        _require(model)
        target = output or model.with_suffix(".plan")
        _check_output(model, target, ".plan")
        _check_places(target, timing_cache)
        source = _folded(model) or model
        with _progress("building", is_shown=not is_json) as progress:
            manifest = build_plan(source, target, settings, progress)
        facts = {
            "plan": str(target),
            "built from": str(source),
            "bytes": target.stat().st_size,
            "built with": f"{manifest.library} {manifest.version}",
            "precision": manifest.precision,
            "profiles": manifest.profiles,
        }
        _report(facts, is_json=is_json)


@engine_app.command()
def quantize(
    model: ModelPath,
    *,
    precision: Annotated[str, typer.Option(help="fp16 or int8")],
    target: Annotated[str, typer.Option(help="cpu or tensorrt")] = "cpu",
    calibration: Annotated[str | None, typer.Option(help="folder of pictures or video, for int8")] = None,
    frames: Annotated[int, typer.Option(min=1, help="most frames to calibrate on")] = 50,
    start: Annotated[int, typer.Option(min=0, help="first frame")] = 0,
    every: Annotated[int, typer.Option(min=1, help="take every so many-th frame")] = 1,
    color: Color = None,
    mean: Mean = None,
    scale: Scale = None,
    output: Output = None,
    is_json: Json = False,
) -> None:
    """Write an ONNX model in FP16, or in INT8 calibrated on frames like those in service."""
    with _errors():
        from forebay_server.engines.build.precision import PRECISIONS, TARGETS, to_fp16, to_int8
        from forebay_server.engines.errors import ModelFileError

        if precision not in PRECISIONS or target not in TARGETS:
            raise ModelFileError(
                f"precision {precision!r} for {target!r}: {' or '.join(PRECISIONS)} for cpu or tensorrt"
            )
        _require(model)
        written = output or model.with_name(f"{model.stem}.{precision}.{target}.onnx")
        _check_output(model, written, ".onnx")
        _check_places(written)
        if precision == "fp16":
            report = to_fp16(model, written)
        else:
            if calibration is None:
                raise ModelFileError("int8 needs --calibration: a folder of pictures or a video")
            feeds = _calibration(model, calibration, (start, every, frames), (color, mean, scale))
            with _progress("calibrating", is_shown=not is_json) as progress:
                report = to_int8(
                    model,
                    written,
                    feeds,
                    "tensorrt" if target == "tensorrt" else "cpu",
                    lambda done, whole: progress("frames", done, whole),
                )
        _report({"model": str(written), **dataclasses.asdict(report)}, is_json=is_json)


@engine_app.command()
def inspect(model: ModelPath, *, is_json: Json = False) -> None:
    """Print the contents of a model file: tensors, precision, operators; of a plan also profiles, layers and memory."""
    with _errors():
        from forebay_server.engines.build.inspection import inspect_file

        _require(model)
        _report(dataclasses.asdict(inspect_file(model)), is_json=is_json)


@engine_app.command()
def verify(
    model: ModelPath,
    *,
    reference: Annotated[Path, typer.Option(help="the original ONNX model, in FP32")],
    frames_from: Annotated[str, typer.Option("--frames", help="folder of pictures or video")],
    most: Annotated[int, typer.Option(min=1, help="most frames to compare on")] = 50,
    start: Annotated[int, typer.Option(min=0, help="first frame: not those of the calibration")] = 0,
    every: Annotated[int, typer.Option(min=1, help="take every so many-th frame")] = 1,
    tolerance: Annotated[
        float, typer.Option(min=0, help="largest error, as a share of the largest value, if there are no results")
    ] = 0.01,
    agreement: Annotated[float, typer.Option(min=0, max=1, help="least share of the reference's results")] = 0.98,
    device: DeviceKind = None,
    color: Color = None,
    mean: Mean = None,
    scale: Scale = None,
    is_json: Json = False,
) -> None:
    """Compare a model with the original on real frames; exit code 1 if the results differ too much."""
    with _errors():
        from forebay_server.engines.build.verification import likely_cause
        from forebay_server.service.cli.engine_compare import compare

        _require(model, reference)
        found = compare(model, reference, device, frames_from, (start, every, most), (color, mean, scale))
        has_results = found.agreement is not None
        if found.agreement is not None:
            is_good = found.agreement.share >= agreement
        else:
            is_good = all(error.relative <= tolerance for error in found.errors)
        facts: dict[str, Any] = {
            "verdict": "agrees" if is_good else "does not agree",
            "frames": found.frames,
            "judged by": f"results, at least {agreement:.2%}" if has_results else f"error, at most {tolerance:.2%}",
            "errors": [{**dataclasses.asdict(error), "relative": error.relative} for error in found.errors],
        }
        if found.agreement is not None:
            facts["results"] = {**dataclasses.asdict(found.agreement), "share": found.agreement.share}
        if not is_good:
            facts["likely cause"] = likely_cause(found.agreement)
        facts["cpu_ms"] = {"reference": found.reference_cpu_ms, "model": found.model_cpu_ms}
        _report(facts, is_json=is_json)
        if not is_good:
            raise typer.Exit(exit_codes.FAILED)


@engine_app.command()
def profile(
    model: ModelPath,
    *,
    batch: Annotated[int, typer.Option(min=1, help="rows of an execution")] = 1,
    runs: Annotated[int, typer.Option(min=1, help="executions to average")] = 20,
    device: DeviceKind = None,
    trace: Annotated[Path | None, typer.Option(help="torch models: where to write a torch.profiler trace")] = None,
    is_json: Json = False,
) -> None:
    """Time a model by stage, and by layer where the runtime reports layers."""
    with _errors():
        from forebay_server.service.cli.engine_compare import profile_model

        _require(model)
        _check_places(trace)
        _report(profile_model(model, device, batch, runs, trace), is_json=is_json)


def _require(*paths: Path) -> None:
    """Raise ModelFileError if one is not a file, with the likely one: the engines' own words are for clients too."""
    from forebay.near_files import near_file
    from forebay_server.engines.errors import ModelFileError
    from forebay_server.service.models.bare_files import FILE_SUFFIXES

    for path in paths:
        if path.is_dir():
            raise ModelFileError(f"{path} is a folder: name the model file in it")
        if not path.is_file():
            raise ModelFileError(f"{path}: no such file{near_file(path, FILE_SUFFIXES)}")


def _check_output(model: Path, output: Path, suffix: str) -> None:
    """Raise ModelFileError for an output over the model itself, or with a name of another kind of model."""
    from forebay_server.engines.errors import ModelFileError

    if output.suffix != suffix:
        raise ModelFileError(f"--output {output}: the name must end in {suffix}, by which the server knows the kind")
    if output.exists() and output.samefile(model):
        raise ModelFileError(f"--output {output} is the model itself: name another file")


def _check_places(*paths: Path | None) -> None:
    """Raise typer.Exit, with a line, if a file cannot be written: before the work, which may take an hour."""
    from forebay_server.loadtest.places import place_fault

    for path in paths:
        if path is not None and (problem := place_fault(path, makes_folders=True)):
            typer.echo(f"forebay: {problem}", err=True)
            raise typer.Exit(exit_codes.CANNOT_WRITE)


def _folded(model: Path) -> Path | None:
    """The model with its normalisation, written beside it if its configuration has `fold: on`."""
    from forebay_server.engines.errors import ModelFileError
    from forebay_server.service.cli.engine_frames import configuration_of
    from forebay_server.service.models.folding import write_folded
    from forebay_server.service.models.repository import RepositoryError

    try:
        description = configuration_of(model)
        return None if description is None else write_folded(model, description)
    except RepositoryError as error:
        raise ModelFileError(str(error)) from error


def _calibration(
    model: Path, source: str, sampling: tuple[int, int, int], how: tuple[str | None, str | None, str | None]
) -> list[dict[str, Any]]:
    from forebay_server.engines.build.runner import ModelRunner
    from forebay_server.service.cli.engine_frames import (
        PictureFlags,
        Sampling,
        describe_model,
        feeds_by_name,
        picture_for,
        read_feeds,
    )

    with ModelRunner(model) as runner:
        specs = runner.specs
    picture = picture_for(specs, describe_model(model, specs), PictureFlags(*how))
    return feeds_by_name(read_feeds(source, picture, specs, Sampling(*sampling)), specs)


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """Turn errors that a user can mend into one line and a documented exit code."""
    from forebay_server.engines.errors import BackendUnavailableError, DeviceLostError, EngineError

    try:
        yield
    except EngineError as error:
        typer.echo(f"forebay: {error}", err=True)
        code = exit_codes.MODEL
        if isinstance(error, BackendUnavailableError):
            code = exit_codes.UNAVAILABLE
        elif isinstance(error, DeviceLostError):
            code = exit_codes.FATAL
        raise typer.Exit(code) from None
    except OSError as error:  # failures to read raise ModelFileError
        typer.echo(f"forebay: cannot write {error.filename or 'the result'}: {error.strerror or error}", err=True)
        raise typer.Exit(exit_codes.CANNOT_WRITE) from None


@contextlib.contextmanager
def _progress(title: str, *, is_shown: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A bar on a terminal's standard error, and nothing elsewhere."""
    if not is_shown or not sys.stderr.isatty():
        yield lambda _phase, _done, _whole: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(title, total=None)
        yield lambda phase, done, whole: bars.update(
            task, description=f"{title}: {phase}"[:60], completed=done, total=whole or None
        )


def _report(facts: Mapping[str, Any], *, is_json: bool) -> None:
    if is_json:
        typer.echo(json.dumps(facts))
        return
    for name, value in facts.items():
        _print(name.replace("_", " "), value)


def _print(name: str, value: Any) -> None:  # noqa: ANN401 - the value of any report
    if value in ([], {}, ""):
        return
    if isinstance(value, list) and isinstance(value[0], dict):
        typer.echo(f"{name}:")
        for row in value:
            typer.echo("  " + "  ".join(_cell(key, each) for key, each in row.items()))
    elif isinstance(value, dict):
        typer.echo(f"{name}: " + ", ".join(_cell(key, each) for key, each in value.items()))
    else:
        typer.echo(f"{name}: {_number(value)}")


def _cell(key: str, value: Any) -> str:  # noqa: ANN401
    return f"{key.replace('_', ' ')} {_number(value)}"


def _number(value: Any) -> str:  # noqa: ANN401
    return f"{value:.4g}" if isinstance(value, float) else str(value)

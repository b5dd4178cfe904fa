"""`forebay models list | load | unload | check`: the models of a running server, and of a folder."""

import contextlib
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from forebay_server.service.cli import exit_codes
from forebay_server.service.cli.health_check import given_or_own
from forebay_server.service.cli.restricted import Restricted, headers_or_exit

models_app = typer.Typer(
    help="List, load, unload and check models.", no_args_is_help=True, add_completion=False, rich_markup_mode=None
)

Address = Annotated[
    str | None, typer.Option(help="host:port or unix:PATH [FOREBAY_UDS, FOREBAY_ADDRESS, 127.0.0.1:8001]")
]
Timeout = Annotated[float, typer.Option(min=0.1, max=3600, help="for everything")]
TlsCa = Annotated[Path | None, typer.Option(help="PEM authorities, or the server's certificate itself")]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else")]


@models_app.command("list")
def list_models(
    *,
    address: Address = None,
    timeout_s: Timeout = 5.0,
    tls_ca: TlsCa = None,
    restricted_protocol: Restricted = None,
    is_json: Json = False,
) -> None:
    """List the models of a running server: name, version, state, reason."""
    lines = _control(address, tls_ca, timeout_s, restricted_protocol, "index")
    if is_json:
        typer.echo(json.dumps({"models": [_as_dict(line) for line in lines]}))
        return
    width = max([len("MODEL"), *(len(line.name) for line in lines)])
    typer.echo(f"{'MODEL':{width}}  VERSION  STATE        REASON")
    for line in lines:
        typer.echo(f"{line.name:{width}}  {line.version or '-':7}  {line.state or '-':11}  {line.reason}".rstrip())


@models_app.command()
def load(
    name: str,
    *,
    address: Address = None,
    timeout_s: Timeout = 300.0,
    tls_ca: TlsCa = None,
    restricted_protocol: Restricted = None,
    is_json: Json = False,
) -> None:
    """Load a model, or load it again, on a server with --model-control-mode explicit; returns when it serves."""
    _control(address, tls_ca, timeout_s, restricted_protocol, "load", name)
    typer.echo(json.dumps({"loaded": name}) if is_json else f"{name} is loaded")


@models_app.command()
def unload(
    name: str,
    *,
    address: Address = None,
    timeout_s: Timeout = 60.0,
    tls_ca: TlsCa = None,
    restricted_protocol: Restricted = None,
    is_json: Json = False,
) -> None:
    """Unload a model; accepted requests are still answered."""
    _control(address, tls_ca, timeout_s, restricted_protocol, "unload", name)
    typer.echo(json.dumps({"unloaded": name}) if is_json else f"{name} is unloaded")


@models_app.command()
def check(
    repositories: Annotated[
        list[Path], typer.Argument(metavar="MODEL...", help="repositories, or model files", show_default=False)
    ],
    *,
    cpu_fallback: Annotated[bool, typer.Option("--cpu-fallback", help="as for serve")] = False,
    is_json: Json = False,
) -> None:
    """Check models without serving them; exit code 1 if one cannot be served."""
    from forebay_server.service.models.check import check_repositories

    with contextlib.redirect_stdout(sys.stderr):  # the log: standard output is for the findings
        findings = check_repositories(repositories, cpu_fallback=cpu_fallback)
    if is_json:
        typer.echo(json.dumps({"models": [_as_dict(finding) for finding in findings]}))
    else:
        for finding in findings:
            for line in finding.warnings:
                typer.echo(f"warning  {line}")
            if finding.problem or finding.summary:
                typer.echo(f"error    {finding.problem}" if finding.problem else f"ok       {finding.summary}")
            for line in finding.derived:
                typer.echo(f"derived  {line}")
            if finding.question:
                typer.echo(f"question {finding.question}")
    if any(finding.problem for finding in findings):
        raise typer.Exit(exit_codes.FAILED)


@models_app.command()
def describe(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="a model file, or a model's folder")],
) -> None:
    """Print a model's configuration with all that its file says, as config.pbtxt."""
    from forebay_server.engines.errors import EngineError
    from forebay_server.service.models.config import describe as describe_entry
    from forebay_server.service.models.dry_run import config_text
    from forebay_server.service.models.files import serving_versions
    from forebay_server.service.models.repository import Repository, RepositoryError

    try:
        where, name = (model.parent, model.name) if model.is_dir() else (model, model.stem)
        entry = Repository([where]).model(name)
        description = describe_entry(entry)
        with contextlib.redirect_stdout(sys.stderr):  # the log: standard output is often a file for the server
            text = config_text(entry, serving_versions(entry, description)[-1], description)
        typer.echo(text, nl=False)
    except (RepositoryError, EngineError) as error:
        typer.echo(f"forebay: {error}", err=True)
        raise typer.Exit(exit_codes.MODEL) from None


def _as_dict(record: Any) -> dict[str, Any]:  # noqa: ANN401 - any record of this project
    return dataclasses.asdict(record)


def _control(
    address: str | None, tls_ca: Path | None, timeout_s: float, restricted: str | None, verb: str, *arguments: str
) -> Any:  # noqa: ANN401
    from forebay.addresses import parse_addresses
    from forebay_server.service.cli.remote.models import ControlError, ModelControl

    try:
        where = given_or_own(address, os.environ)
        count = len(parse_addresses(where)[0])
    except ValueError as error:
        typer.echo(f"forebay: {error}", err=True)
        raise typer.Exit(exit_codes.USAGE) from None
    if count > 1:
        typer.echo("forebay: --address names several servers, and each has models of its own: give one", err=True)
        raise typer.Exit(exit_codes.USAGE)
    try:
        control = ModelControl(where, tls_ca, timeout_s, headers_or_exit("model-repository", restricted))
        return getattr(control, verb)(*arguments)
    except ControlError as error:
        prefix = f"{where} does not answer: " if error.is_unreachable else ""
        typer.echo(f"forebay: {prefix}{error}", err=True)
        raise typer.Exit(exit_codes.UNAVAILABLE if error.is_unreachable else exit_codes.FAILED) from None

"""`forebay serve`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from service.cli import exit_codes


def serve(
    address: Annotated[
        str | None, typer.Option(help="host:port to listen on [127.0.0.1:8001]; port 0: a free one")
    ] = None,
    uds: Annotated[Path | None, typer.Option(help="also listen on this unix socket")] = None,
    model_repository: Annotated[
        list[Path] | None, typer.Option(help="model repository, may be given several times [the bundled one]")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with settings")] = None,
    ready_file: Annotated[Path | None, typer.Option(help="written with one JSON line when ready")] = None,
) -> None:
    """Serve models. Prints one JSON line when ready; SIGTERM drains and ends with 0."""
    from service.tuning import tune_process

    tuning = tune_process()  # before anything imports grpc
    import structlog

    from service.log import configure_logs
    from service.server import serve as run_server

    configure_logs()
    if tuning.missing:
        structlog.get_logger(__name__).warning("process tuning incomplete", missing=tuning.missing)
    else:
        structlog.get_logger(__name__).info("process tuned")
    flags: dict[str, Any] = {
        "address": address,
        "uds": uds,
        "model_repository": model_repository,
        "ready_file": ready_file,
    }
    settings = load_settings({name: value for name, value in flags.items() if value is not None}, config)
    raise typer.Exit(_run(run_server, settings))


def load_settings(flags: dict[str, Any], config: Path | None) -> Any:  # noqa: ANN401 - imported lazily
    """Merge flags, environment, TOML and defaults; a mistake is one line and exit code 2."""
    from pydantic import ValidationError

    from service.settings import ServeSettings, read_toml

    try:
        return ServeSettings(**{**({} if config is None else read_toml(config)), **flags})
    except ValidationError as error:
        for problem in error.errors():
            where = ".".join(str(part) for part in problem["loc"])
            typer.echo(f"forebay: setting {where}: {problem['msg']} (got {problem.get('input')!r})", err=True)
    except ValueError as error:
        typer.echo(f"forebay: {error}", err=True)
    raise typer.Exit(exit_codes.USAGE)


def _run(run_server: Any, settings: Any) -> int:  # noqa: ANN401 - imported lazily
    from engines.errors import EngineError
    from service.frontend.server import AddressError
    from service.models.repository import RepositoryError

    try:
        return int(run_server(settings))
    except (RepositoryError, EngineError) as error:
        typer.echo(f"forebay: {error}", err=True)
        return exit_codes.MODEL
    except AddressError as error:
        typer.echo(f"forebay: {error}", err=True)
        return exit_codes.UNAVAILABLE

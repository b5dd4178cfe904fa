"""`forebay serve`."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forebay_server.service.cli import exit_codes

if TYPE_CHECKING:
    from collections.abc import Callable

    from forebay_server.service.settings import LoadedSettings, ServeSettings
    from forebay_server.service.tuning import Tuning


def serve(
    models: Annotated[
        list[Path] | None,
        typer.Argument(metavar="MODEL", help="model files, such as best.onnx, or repositories", show_default=False),
    ] = None,
    *,
    address: Annotated[str | None, typer.Option(help="host:port [127.0.0.1:8001]; port 0 takes a free one")] = None,
    front_ends: Annotated[
        str | None, typer.Option(metavar="N", help="front-end processes; 0: none; auto: by the machine [auto]")
    ] = None,
    engines: Annotated[
        str | None, typer.Option(metavar="N", help="processes that run the models; auto: one for each GPU [1]")
    ] = None,
    share_port: Annotated[bool | None, typer.Option("--share-port", help="others may listen on the port too")] = None,
    uds: Annotated[Path | None, typer.Option(help="also listen on this unix socket")] = None,
    model_repository: Annotated[
        list[Path] | None, typer.Option(help="model repository, may be given several times [the bundled one]")
    ] = None,
    model_control_mode: Annotated[str | None, typer.Option(help="none, explicit or poll [none]")] = None,
    load_model: Annotated[list[str] | None, typer.Option(help="explicit: load at start; *: all")] = None,
    exit_on_error: Annotated[
        str | None, typer.Option(metavar="BOOL", help="false: start without models that fail [true]")
    ] = None,
    strict_readiness: Annotated[
        str | None, typer.Option(metavar="BOOL", help="false: ready without models that failed [true]")
    ] = None,
    admin_address: Annotated[str | None, typer.Option(help="host:port of the live page and /metrics [none]")] = None,
    cpu_fallback: Annotated[
        bool | None, typer.Option("--cpu-fallback", help="KIND_GPU may fall back to the CPU")
    ] = None,
    allow_client_shm: Annotated[
        bool | None, typer.Option("--allow-client-shm", help="clients may use shared memory")
    ] = None,
    reflection: Annotated[bool | None, typer.Option("--reflection", help="for tools such as grpcurl")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file; `forebay config schema` lists settings")] = None,
    ready_file: Annotated[Path | None, typer.Option(help="written with one JSON line when ready")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM certificate chain")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM private key")] = None,
    tls_client_ca: Annotated[Path | None, typer.Option(help="PEM authorities that clients must have")] = None,
    insecure: Annotated[bool | None, typer.Option("--insecure", help="any address without TLS")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error [info]")] = None,
    supervise: Annotated[
        bool, typer.Option("--supervise", help="start anew after a crash, a hang, a lost device")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks")] = False,
) -> None:
    """Serve models. Prints one JSON line when ready; SIGTERM drains and ends with 0."""
    flags = {
        "address": address,
        "front_ends": front_ends,
        "engines": engines,
        "share_port": share_port,
        "uds": uds,
        "model_repository": [*(models or ()), *(model_repository or ())] or None,
        "model_control_mode": model_control_mode,
        "load_model": load_model,
        "exit_on_error": exit_on_error,
        "strict_readiness": strict_readiness,
        "admin_address": admin_address,
        "cpu_fallback": cpu_fallback,
        "allow_client_shm": allow_client_shm,
        "reflection": reflection,
        "ready_file": ready_file,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "tls_client_ca": tls_client_ca,
        "insecure": insecure,
        "log_level": log_level,
    }
    loaded = settings_or_exit(flags, config)
    _check_ready_file(loaded.values.ready_file)
    if supervise:
        raise typer.Exit(run_supervised())
    raise typer.Exit(run_group_or_server(loaded.values, is_debug=debug))


def _check_ready_file(path: Path | None) -> None:
    """End the command, with a line, if the ready file cannot be written: before models are loaded."""
    from forebay_server.loadtest.places import place_fault

    if path is not None and (problem := place_fault(path, is_replaced=True)):
        typer.echo(f"forebay: --ready-file: {problem}", err=True)
        raise typer.Exit(exit_codes.CANNOT_WRITE)


def run_group_or_server(settings: "ServeSettings", *, is_debug: bool) -> int:
    """Serve, with front-end processes if settings and machine say so, and return the exit code."""
    from forebay_server.service.group.count import CountError, engine_count, front_end_count
    from forebay_server.service.standard_error import say

    try:
        count = front_end_count(settings.front_ends)
        settings = settings.model_copy(update={"engines": engine_count(settings.engines, count)})
    except CountError as error:
        say(str(error))
        return exit_codes.USAGE
    if count == 0:
        return run_server(settings, is_debug=is_debug)
    from forebay_server.service.frontend.binding import AddressError
    from forebay_server.service.group.parent import run_group
    from forebay_server.service.group.starts import GroupError
    from forebay_server.service.ready import ReadyError

    try:
        return run_group(settings, count, ["--debug"] if is_debug else [], os.environ)
    except (AddressError, GroupError, ReadyError) as error:
        say(str(error))
        return exit_codes.CANNOT_WRITE if isinstance(error, ReadyError) else exit_codes.UNAVAILABLE


def run_supervised() -> int:
    """Run this command line, without `--supervise`, as a child that is restarted when it fails."""
    from forebay_server.service.clock import MonotonicClock
    from forebay_server.service.supervisor import supervise

    return supervise([argument for argument in sys.argv[1:] if argument != "--supervise"], MonotonicClock())


def settings_or_exit(flags: dict[str, Any], config: Path | None) -> "LoadedSettings":
    """Load the settings; each mistake is one line, and the exit code is 2."""
    from forebay_server.service.settings import SettingsError, load_settings

    try:
        given = {name: value for name, value in flags.items() if value is not None}
        return load_settings(given, config, os.environ)
    except SettingsError as error:
        for line in str(error).splitlines():
            typer.echo(f"forebay: {line}", err=True)
        raise typer.Exit(exit_codes.USAGE) from None


def run_server(settings: "ServeSettings", *, is_debug: bool) -> int:
    """Tune this process, serve until a signal stops it, and return the exit code."""

    def serve_here(settings: "ServeSettings") -> int:
        from forebay_server.service.server import serve as run

        return run(settings)

    return run_process(settings, serve_here, is_debug=is_debug)


def run_process(
    settings: "ServeSettings",
    run: "Callable[[ServeSettings], int]",
    tuning: "Tuning | None" = None,
    *,
    is_debug: bool,
) -> int:
    """Tune this process, set up its log, run it, and return the exit code.

    Args:
        settings: of this process.
        run: serves until it is stopped; imports what it needs when it is called, after the process was tuned.
        tuning: of a process that was tuned before.
        is_debug: whether errors show their traceback.
    """
    from forebay_server.service.tuning import tune_process

    tuning = tuning or tune_process()  # before the first import of grpc
    import structlog

    from forebay_server.engines.errors import EngineError
    from forebay_server.service.clock import MonotonicClock
    from forebay_server.service.frontend.server import AddressError, CertificateError
    from forebay_server.service.log import configure_logs
    from forebay_server.service.log_sources import take_over
    from forebay_server.service.models.attempts import LoadAbandonedError
    from forebay_server.service.models.repository import RepositoryError
    from forebay_server.service.native_output import take_descriptor
    from forebay_server.service.observe.tracing import TracingError
    from forebay_server.service.ready import ReadyError
    from forebay_server.service.settings import unknown_variables
    from forebay_server.service.standard_error import LAST_WORDS_TIMEOUT_S, STANDARD_ERROR, say

    configure_logs(settings.log_format, settings.log_level)
    take_over()
    take_descriptor(MonotonicClock())
    log = structlog.get_logger(__name__)
    if tuning.missing:
        log.warning("process tuning incomplete", missing=tuning.missing)
    else:
        log.info("process tuned")
    for line in unknown_variables(os.environ):
        log.warning("environment", detail=line)
    try:
        return run(settings)
    except (RepositoryError, EngineError, AddressError, CertificateError, TracingError, ReadyError) as error:
        if is_debug:
            raise
        say(str(error))
        if isinstance(error, LoadAbandonedError):
            STANDARD_ERROR.close(LAST_WORDS_TIMEOUT_S)
            os._exit(exit_codes.MODEL)  # a thread may be inside a library that the interpreter would tear down
        if isinstance(error, ReadyError):
            return exit_codes.CANNOT_WRITE
        if isinstance(error, CertificateError):
            return exit_codes.USAGE
        return exit_codes.UNAVAILABLE if isinstance(error, AddressError | TracingError) else exit_codes.MODEL
